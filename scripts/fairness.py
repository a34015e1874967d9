#!/usr/bin/env python3
"""Measures one client while another one floods, or a domain has no answer: dotproxy and unbound.

Each row has a resolver with its own delay, and a client at 127.0.0.1 that queries 30 new names per
second. It is measured without the flood and then with it. The flood comes from 127.0.0.2 unless
the row has another source:

  new names, 100 ms   17,000 new names per second, the resolver takes 100 ms
  new names, 1 s      the same with a resolver that takes 1 s
  large table, 1 s    the same with --max-inflight 20000, so that queries wait for room on a link
  eight clients, 1 s  the same from 127.0.0.2 to 127.0.0.9, so that the table is full
  dead domain         1,500 new names per second below a domain with an upstream that never answers
  dead domain, same   the same from 127.0.0.1 itself
  TCP connections     190 connections that pipeline new names, with a limit of 100 queries per second

  scripts/fairness.py [--seconds 10] [--binary PATH] [--rows TEXT] [--alone] [--check]

Needs the packages of scripts/install_test_deps.sh. --alone omits unbound. --check exits with 1 if
the client of dotproxy got fewer than 99 of 100 answers during a flood, or if its median was more
than 30 % above the median without a flood: that depends on the load of the machine. Without
--check, only a client without any answer is an error.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import peers
from testbed import PATIENCE_S, ROOT, ask, free_port, make_certificates, query, start_unbound, stop

PER_SECOND = 30
CLIENT_TIMEOUT_S = 6.0
FLOODER = "127.0.0.2"
# Time before the measurement, so that the tables are full.
WARM_UP_S = 2.0
ANSWERED_MIN, MEDIAN_GROWTH_MAX = 0.99, 0.30
# The tolerance between two medians of the same load on a machine with two processors.
MEDIAN_SLACK_S = 0.005
CONNECTIONS, PIPELINED, RATE = 190, 50, 100
DEAD = "dead.example"


@dataclass
class Row:
    label: str
    # Seconds from a query to its answer.
    delay: float
    # The flood, which runs in its own process until it is terminated.
    flood: object
    # The arguments of the flood after the port.
    settings: tuple = ()
    options: list = field(default_factory=list)
    unbound: str = ""


def flood_udp(port, sources, per_second, below):
    """Queries new names at this rate. The kernel drops the responses."""
    sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in sources]
    for udp, source in zip(sockets, sources):
        udp.bind((source, 0))
        udp.connect(("127.0.0.1", port))
        udp.setblocking(False)
    start, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - start) * per_second)
        # A delay does not increase the rate afterwards.
        sent = max(sent, due - per_second // 100)
        for number in range(sent, due):
            with contextlib.suppress(OSError):
                sockets[number % len(sockets)].send(query(number % 65536, f"f{number}.{below}"))
        sent = max(sent, due)
        time.sleep(0.001)


def flood_tcp(port):
    """Keeps connections open, with this number of pipelined queries on each."""
    numbers, open_ones, poller = iter(range(1 << 60)), {}, select.poll()

    def ask_more(tcp, count):
        for _ in range(count):
            message = query(1, f"t{next(numbers)}.flood.example")
            with contextlib.suppress(BlockingIOError):
                tcp.send(struct.pack("!H", len(message)) + message)

    while True:
        while len(open_ones) < CONNECTIONS:
            tcp = socket.socket()
            tcp.bind((FLOODER, 0))
            try:
                tcp.connect(("127.0.0.1", port))
            except OSError:
                tcp.close()
                break
            tcp.setblocking(False)
            open_ones[tcp.fileno()] = tcp
            poller.register(tcp, select.POLLIN)
            with contextlib.suppress(OSError):
                ask_more(tcp, PIPELINED)
        for number, _ in poller.poll(100):
            tcp = open_ones[number]
            try:
                data = tcp.recv(1 << 16)
                ask_more(tcp, len(data) // 60)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                poller.unregister(tcp)
                tcp.close()
                del open_ones[number]
        time.sleep(0.001)


NEW_NAMES = ([FLOODER], 17_000, "flood.example")
EIGHT = [f"127.0.0.{host}" for host in range(2, 10)]
OWN_UPSTREAM = "\nforward-zone:\n  name: \"dead.example\"\n  forward-addr: 127.0.0.1@{dead}\n"
ROWS = [
    Row("new names, 100 ms", 0.1, flood_udp, NEW_NAMES),
    Row("new names, 1 s", 1.0, flood_udp, NEW_NAMES),
    Row("large table, 1 s", 1.0, flood_udp, NEW_NAMES, ["--max-inflight", "20000"]),
    Row("eight clients, 1 s", 1.0, flood_udp, (EIGHT, 17_000, "flood.example")),
    Row("dead domain", 0.02, flood_udp, ([FLOODER], 1_500, DEAD),
        ["-u", "udp://127.0.0.1:{dead},domain=dead.example"], OWN_UPSTREAM),
    Row("dead domain, same", 0.02, flood_udp, (["127.0.0.1"], 1_500, DEAD),
        ["-u", "udp://127.0.0.1:{dead},domain=dead.example"], OWN_UPSTREAM),
    Row("TCP connections", 0.02, flood_tcp, (), ["--rate-limit", str(RATE)],
        f"\nserver:\n  ip-ratelimit: {RATE}\n"),
]


class Delay:
    """A relay to a resolver that delays the data of the resolver, except for its part of the TLS
    handshake."""

    def __init__(self, port, to, delay):
        self.port, self.to, self.delay = port, to, delay

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        server = await asyncio.start_server(self.relay, "127.0.0.1", self.port)
        await server.serve_forever()

    async def relay(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            return writer.close()
        far_socket, flights = far_writer.get_extra_info("socket"), [0]
        await asyncio.gather(self.forward(reader, far_writer, flights),
                             self.hold_back(far_reader, far_socket, writer, flights))

    @staticmethod
    async def forward(reader, writer, flights):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                flights[0] += 1
                writer.write(data)
        writer.close()

    async def hold_back(self, reader, far_socket, writer, flights):
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                # unbound sends the next answer after the last one was acknowledged.
                far_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                # The first message of the client is its ClientHello.
                delay = self.delay if flights[0] > 1 else 0
                loop.call_later(delay, self.write, writer, data)
        loop.call_later(self.delay, writer.close)

    @staticmethod
    def write(writer, data):
        if not writer.is_closing():
            writer.write(data)


def client(port, seconds, tag):
    """Queries new names from 127.0.0.1. Returns the number of queries, and the time of each
    answer."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.connect(("127.0.0.1", port))
        udp.setblocking(False)
        asked_at, waited, number = {}, [], 0
        start, total = time.monotonic(), int(seconds * PER_SECOND)
        while time.monotonic() < start + seconds + CLIENT_TIMEOUT_S:
            now = time.monotonic()
            while number < total and start + number / PER_SECOND <= now:
                asked_at[number] = time.monotonic()
                udp.send(query(number, f"c{number}.{tag}.client.example"))
                number += 1
            if number == total and not asked_at:
                break
            due = start + number / PER_SECOND - time.monotonic() if number < total else 0.05
            select.select([udp], [], [], max(0.0, min(due, 0.05)))
            with contextlib.suppress(OSError):
                while True:
                    data = udp.recv(4096)
                    since = asked_at.pop(struct.unpack("!H", data[:2])[0], None)
                    if since is not None and data[3] & 15 == 0 and data[6:8] != b"\0\0":
                        waited.append(time.monotonic() - since)
        return total, waited


def dotproxy(work, row, port, way, dead, binary):
    options = [option.format(dead=dead) for option in row.options]
    command = [binary, "-l", "127.0.0.1", "-p", str(port), "--ca-file", f"{work}/ca.pem",
               "-u", f"127.0.0.1:{way}#dot.example", *options]
    return subprocess.Popen(command, stderr=open(f"{work}/dotproxy.log", "w"))


def unbound(work, row, port, way, dead, _):
    settings = peers.Settings(work, port, way, has_cache=True)
    with open(f"{work}/unbound.conf", "w") as file:
        file.write(peers.unbound(settings) + row.unbound.format(dead=dead))
    return subprocess.Popen(["unbound", "-d", "-c", f"{work}/unbound.conf"])


def await_answer(port):
    end = time.monotonic() + PATIENCE_S
    while ask(port, f"ready{time.monotonic_ns()}.client.example") is None:
        if time.monotonic() > end:
            sys.exit("the program does not answer")
        time.sleep(0.02)


@contextlib.contextmanager
def beside(target, *arguments):
    """Runs a function in another process during the block."""
    process = multiprocessing.Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def measure(work, row, start, arguments):
    """Measures the client without the flood and with it."""
    upstream, way, port = free_port(), free_port(), free_port()
    resolver = start_unbound(work, upstream)
    with socket.socket(type=socket.SOCK_DGRAM) as dead, \
            beside(Delay(way, upstream, row.delay).run):
        # The server never reads and never answers.
        dead.bind(("127.0.0.1", 0))
        program = start(work, row, port, way, dead.getsockname()[1], arguments.binary)
        try:
            await_answer(port)
            before = client(port, arguments.seconds / 2, "before")
            with beside(row.flood, port, *row.settings):
                time.sleep(WARM_UP_S)
                during = client(port, arguments.seconds, "during")
        finally:
            stop(program)
            stop(resolver)
    return before, during


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--rows", default="", help="only rows with this text in their label")
    parser.add_argument("--alone", action="store_true", help="without unbound")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    arguments.binary = os.path.abspath(arguments.binary)
    programs = [("dotproxy", dotproxy)] + ([] if arguments.alone else [("unbound", unbound)])
    print(f"{'':20}{'':10}{'without':>12}{'with the flood':>26}")
    broken = []
    for row in ROWS:
        if arguments.rows not in row.label:
            continue
        for name, start in programs:
            with tempfile.TemporaryDirectory() as work:
                make_certificates(work)
                (_, usual), (asked, waited) = measure(work, row, start, arguments)
            if not usual:
                sys.exit(f"{row.label}: {name} gave no answer without a flood")
            before, answered = statistics.median(usual), len(waited) / asked
            during = statistics.median(waited) if waited else float("inf")
            print(f"{row.label:20}{name:10}{before * 1e3:>9.1f} ms{during * 1e3:>9.1f} ms"
                  f"{len(waited):>8} of {asked}", flush=True)
            is_slow = during > before * (1 + MEDIAN_GROWTH_MAX) + MEDIAN_SLACK_S
            if name == "dotproxy" and (answered < ANSWERED_MIN or is_slow):
                broken.append(row.label)
            if name == "dotproxy" and not waited:
                sys.exit(f"{row.label}: no answer during the flood")
    if broken and arguments.check:
        sys.exit(f"a client is below the limits: {'; '.join(broken)}")


if __name__ == "__main__":
    main()
