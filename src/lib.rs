//! dotproxy is a DNS forwarder: it takes plain DNS over UDP and TCP from the machines around it and
//! sends it to a resolver over TLS (RFC 7858). The resolver has to authenticate itself, or it gets
//! no query. Only names that are configured for a plain upstream leave in clear text.
//!
//! This page is the architecture. The program is `src/main.rs`: options in, exit code out. The
//! library beside it exists so that tests, benchmarks and fuzz targets reach its parts; its
//! interface is not stable.
//!
//! # Two tiers and a loop
//!
//! ```text
//!        decides                                        moves bytes
//!   ┌───────────────┐  queries, replies, time   ┌─────────────────────────┐
//!   │     proxy     │◄──────────┐   ┌───────────┤        session          │
//!   │ client        │           │   │ messages  │ client    UDP, TCP, TLS │
//!   │ exchange      │        ┌──┴───┴──┐        │ upstream  UDP, TCP, TLS │
//!   │ cache         │        │ reactor │        │ observer  HTTP, dnstap  │
//!   │ upstream      ├───────►│ the loop├───────►│   over transport: plain │
//!   │ validator     │ actions└────┬────┘ bytes  │   or TLS                │
//!   └───────┬───────┘             │             └───────┬─────────────────┘
//!           │                     ▼ sockets, clock      │
//!           │               ┌───────────┐               │
//!           └──────►  wire  │    net    │  wire ◄───────┘
//!                           └───────────┘
//! ```
//!
//! - [`proxy`] is the query engine. Events and the time go in, actions come out. It performs no I/O
//!   and reads no clock, and all its randomness comes from a seed, so a simulation can replay it.
//! - [`session`] turns each socket into a state machine: partial reads, framing, TLS. Sessions do
//!   not know each other and work on anything that reads and writes.
//! - [`reactor`] is the loop that knows both. It waits, hands bytes to sessions and messages to the
//!   proxy, and performs the actions.
//! - [`net`] is the access to sockets and the clock: a trait with one implementation over mio.
//!   Tests have another implementation, with a simulated clock.
//! - [`wire`] is the DNS message format, for both tiers. It is a crate of its own, which uses no
//!   other part and is optimised for speed where the rest is optimised for size.
//!
//! A single object that does everything, TLS included, would need its own flow control at its
//! border. Sessions that call each other become a web that no test can simulate. Two tiers that
//! never meet can each be tested alone. `tests/suite/tidy.rs` checks that each module imports only
//! the modules below it.
//!
//! Around them: [`options`] (one table for command line, options file and help), [`config`] (the
//! settings, and every limit of the program), [`tls`] (trust anchors, certificates, keys, and the
//! clock that certificates are judged by), [`process`] (sandbox, service manager, file limit),
//! [`telemetry`] (formats of logs, metrics, dnstap and traces), [`dnssec`] (signatures, denials of
//! existence, and the validation of a message), [`check`] and [`check_upstreams`] (the commands
//! that check the settings and the upstreams), and [`base`] (what all of them share).
//!
//! # The path of a query
//!
//! 1. The poller reports that a UDP socket is readable. The reactor runs its session
//!    ([`session::client::datagram`]), which reads up to 64 datagrams and hands each to
//!    [`proxy::Proxy::handle_query`] (`proxy/client/access_control.rs`).
//! 2. `handle_query` parses the message once, without copying ([`wire::Message::parse`]), and
//!    `proxy/client/admission.rs` decides: ignored, answered with an error, or accepted. Then
//!    `handle_query` applies the cookie, the access control list and the rate limit.
//! 3. `proxy/client/query.rs` looks up the cache. A fresh answer is copied into the outbox with its
//!    remaining TTLs, and the query ends. Otherwise `proxy/upstream/routes.rs` chooses the pool of
//!    upstreams for the name (split horizon); special-use names are answered locally.
//! 4. An exchange is created: the query in its upstream form, the client, a deadline. If the same
//!    question is being asked already, the query is attached to that exchange
//!    (`proxy/exchange/coalesce.rs`). If not, `proxy/upstream/selection.rs` picks the first
//!    endpoint in the ranking of the pool that has a link with room. The query gets an
//!    unpredictable id that is unique on its link and is appended, padded, to the outbox. Without
//!    a link that has room, the exchange waits while a link is opened.
//! 5. After all sessions have run, after each group of datagrams, and as soon as the outbox is
//!    long, the reactor performs the actions (`reactor/output.rs`). The queries of a turn gather in
//!    the buffer of their link, which is encrypted into one record and written at once.
//! 6. The reply arrives, in any number of pieces. The session decrypts it, finds the frame and
//!    hands the message to [`proxy::Proxy::handle_reply`]. It is used if link, id, QR, opcode and
//!    question match a query that waits; every other message is dropped and counted. An error is
//!    kept while another upstream is asked, which may do better. With `--dnssec`, an answer is
//!    validated (`proxy/validator`). Then it is added to the cache (`proxy/exchange/deliver.rs`).
//! 7. The response is written once (`wire/src/response.rs`), with the client's id, flags, letter
//!    case and OPT, and as many whole RRsets as fit; a truncated response has TC set. It leaves
//!    from the address that the client asked. Then the exchange ends (`proxy/exchange/end.rs`).
//!
//! If the link closes first, its queries are retried on another link; a query that was on two such
//! links is sent alone (`proxy/upstream/suspects.rs`). If the link is silent, the query is hedged,
//! and the first answer wins. A query has at most three tries, all before its deadline. The first
//! hedge, attempts that ended in an error, truncated datagrams, and attempts lost to a close after
//! other answers do not count as tries (`proxy/exchange/attempts.rs`).
//!
//! State diagrams: exchange in `proxy/exchange/mod.rs`, link in `proxy/upstream/link/mod.rs`,
//! endpoint in `proxy/upstream/health.rs`, connections in [`session::client::stream`] and
//! [`session::transport::tls`].
//!
//! # Invariants
//!
//! - Every query that the rate limit does not drop gets exactly one response, within its deadline.
//! - No byte of a query is written to a peer before the peer is authenticated, unless the upstream
//!   is configured as plain; a plain upstream gets queries for its own domains only.
//! - Every table, queue and buffer has a limit in [`config::Limits`]. At the limit, work is refused
//!   or its sender is not read, and both are counted.
//! - After a burst, its memory is released.
//! - Input from outside ends in a value or an error. No input causes a panic.
//!
//! # Where a new feature goes
//!
//! | feature | module |
//! |---|---|
//! | a decision about a client's query | `proxy/client`, beside `admission` and `local_zones` |
//! | a change of an answer, like DNS64 | `proxy/exchange/deliver`, before the cache keeps it |
//! | a query of our own (A for DNS64) | an exchange with a purpose, as in `upstream/bootstrap` |
//! | state learned about an upstream | `proxy/upstream` |
//! | a transport protocol | [`session`], or a [`session::Transport`] below one |
//! | an exporter | its format in [`telemetry`], its socket in `reactor/export` |
//! | an option | a row in `options/table/`, a field of [`config::Config`], and its use |
//!
//! # Glossary
//!
//! - **query**, **reply**, **response**: a message from a client or to an upstream; from an
//!   upstream; to a client.
//! - **exchange**: the processing of one question. **attempt**: one transmission of the query.
//! - **link**: the proxy's view of one connection to an upstream, or of one datagram.
//! - **endpoint**: one address of an upstream. **pool**: upstreams that may answer the same names.
//!   **route**: the choice of a pool for a name (split horizon).
//! - **coalesce**: attach a query to an exchange for the same question.
//! - **hedge**: a second attempt while the first is unanswered. **retry**: another attempt after a
//!   failure. **probe**: a query of our own that tests an endpoint.
//! - **outage**, **back-off**: why and for how long an endpoint is not used.
//! - **outcome**: how a query ended. **stale**: past its TTL. **negative cache**: cached NXDOMAIN
//!   and NODATA (RFC 2308). **failure cache**: cached failures (RFC 9520).
//! - **suspect**: a query that may be the reason why links ended. **isolated link**: a link for one
//!   suspect.
//! - **park**: stop reading a client until there is room.

#![forbid(unsafe_code)]

pub mod base;
pub mod block;
pub mod check;
pub mod check_upstreams;
pub mod config;
pub mod dnssec;
pub mod net;
pub mod options;
pub mod process;
pub mod proxy;
pub mod reactor;
pub mod session;
pub mod telemetry;
pub mod tls;

pub use dotproxy_wire as wire;
