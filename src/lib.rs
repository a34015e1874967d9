//! dotproxy takes plain DNS from the machines around it, over UDP and TCP, and carries it to a
//! resolver over TLS (RFC 7858): encrypted, to a peer that has proved who it is, or not at all.
//! Only names that a resolver has to itself go in the clear, if its user wants that.
//!
//! This page is the architecture. The program is `src/main.rs`: options in, exit code out. The
//! library beside it is there so that tests, benchmarks and fuzzers reach the parts;
//! its interface is no promise.
//!
//! # Two tiers and a loop
//!
//! ```text
//!        decides                                        moves bytes
//!   ┌───────────────┐  queries, replies, time   ┌─────────────────────────┐
//!   │     proxy     │◄──────────┐   ┌───────────┤        session          │
//!   │ cache, routes │           │   │ messages  │ client_datagram         │
//!   │ exchanges     │        ┌──┴───┴──┐        │ client_stream           │
//!   │ upstreams     │        │ reactor │        │ upstream_datagram       │
//!   │ links         ├───────►│ the loop├───────►│ upstream_stream         │
//!   └───────┬───────┘ actions└────┬────┘ bytes  │   over transport: plain │
//!           │                     │             │   or TLS; http          │
//!           │                     │             └───────┬─────────────────┘
//!           │                     ▼ sockets, clock      │
//!           │               ┌───────────┐               │
//!           └──────►  wire  │    net    │  wire ◄───────┘
//!                           └───────────┘
//! ```
//!
//! - [`proxy`] is pure. What happened goes in with the time, actions come out. It knows no socket,
//!   no clock and no chance but a seed, so that any of its lives can be lived again.
//! - [`session`] turns each socket into a state machine: partial reads, framing, TLS. Sessions know
//!   nothing of each other and work on whatever reads and writes.
//! - [`reactor`] is the loop that knows both. It waits, hands bytes to sessions and messages to the
//!   proxy, and performs the actions.
//! - [`net`] is the way to sockets and clock, a trait with one implementation over mio. Tests have
//!   another, with a clock that jumps.
//! - [`wire`] is the bytes of DNS, for both tiers. Its crate knows nothing of the others, and is
//!   optimised for time where the rest is for size.
//!
//! Why so: one object that does all, TLS included, would have to invent back-pressure again at its
//! border; sessions that call each other end as a web that nobody can simulate. Two tiers that
//! never meet can each be tested alone, and whoever adds a decision knows in which one it belongs.
//! The layers are held by `tests/suite/tidy.rs`.
//!
//! Around them: [`options`] (one table for command line, file and help), [`config`] (what the
//! options come to, and every limit of the program), [`tls`] (whom we trust, and who we are),
//! [`clock`] (what time it is at least), [`confinement`] (what the process may still do),
//! [`supervisor`] (who has started it), [`telemetry`] (what others read of all this: logs, numbers,
//! messages, traces), [`probe`], [`descriptors`], [`mod@file`], and the vocabulary that all share:
//! [`arena`] (tables whose keys carry a generation), [`address`], [`time`], [`random`], [`origin`],
//! [`failure`], [`histogram`].
//!
//! # The life of a query
//!
//! 1. The poller says that a UDP socket is readable. The reactor steps its session, which reads up
//!    to 64 datagrams and hands each to [`proxy::Proxy::handle_query`].
//! 2. The message is walked once, without copying ([`wire::Message::parse`]). What is no query is
//!    ignored, what cannot be forwarded is answered with an error at once.
//! 3. If the answer is known and fresh, it is copied into the outbox with what is left of its TTLs,
//!    and that is all. Otherwise its name decides who is asked: the pool of upstreams that have its
//!    domain to themselves, or that for all other names. Special names are answered here.
//! 4. An exchange is made: the query in the form that goes upstream, where its response goes, a
//!    deadline. No memory is allocated for it once the program has warmed up. If the same is asked
//!    already, it waits for that answer. If not: in the ranking of the pool, the first address of
//!    an upstream that can be used has a link with room. The query gets an id that nobody can
//!    foresee and that no other on this link has, and is appended, padded, to the outbox. Without
//!    such a link it waits while one is opened.
//! 5. When every session has been stepped, the reactor performs the actions. Queries of the whole
//!    turn gather in the buffer of their link, which is then encrypted into one record and written
//!    at once.
//! 6. The answer comes, in whatever pieces. The session decrypts, finds the frame and hands the
//!    message to [`proxy::Proxy::handle_reply`]. It is used if link, id, QR, opcode and question
//!    are those of a query that waits; all else is dropped and counted. An error is kept while
//!    another upstream is asked, who may do better. What is of use to others, too, is kept in the
//!    cache.
//! 7. The response is written once: the client's id, flags and letter case, its own OPT, as many
//!    whole RRsets as it takes. It leaves from the address that was asked.
//!
//! If upstream closes instead, the query goes out again on a new link; if it is silent, on another
//! as well, and the first answer wins; three times at most, and never past the deadline. The states
//! of a query are drawn in `proxy/exchange/mod.rs`, those of a link in `proxy/upstream/link.rs`, those
//! of an address of an upstream in `proxy/upstream/health.rs`, those of connections in
//! [`session::client_stream`] and [`session::tls_stream`].
//!
//! # What always holds
//!
//! - Every query gets exactly one response, within the time that the options allow.
//! - No byte of a query is written to a peer before it is authenticated, unless the upstream is one
//!   in the clear; such a one is sent queries for its own domains and nothing else.
//! - Every table, queue and buffer has a limit in [`config::Limits`]. At the limit the newest is
//!   refused, or its sender not read, and that is counted. In the table of queries it is the newest
//!   of the client that holds most; one client, or one domain, holds a quarter at most.
//! - After a burst the memory that it took goes back.
//! - Whatever comes from outside ends in a value or an error. Nothing panics on it.
//!
//! # Where a new feature goes
//!
//! A decision about queries goes to [`proxy`], as a file of its own beside `admission` and
//! `routes`. A query of our own is an exchange with another asker (`proxy/upstream/bootstrap.rs`). What is
//! known of an upstream has its place in `proxy/upstream`. A new way for bytes to come or go is a
//! session, or another [`session::Transport`] beneath one. What is told to others has its form in
//! [`telemetry`]; the reactor hands it over. A new option is a row in `options/table.rs`. None of
//! them touches the loop.

#![forbid(unsafe_code)]

pub mod base;
pub mod check;
pub mod config;
pub mod net;
pub mod options;
pub mod process;
pub mod proxy;
pub mod reactor;
pub mod session;
pub mod telemetry;
pub mod tls;

pub use dotproxy_wire as wire;
