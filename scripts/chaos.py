#!/usr/bin/env python3
"""Measures what clients see of an upstream that fails while another is healthy.

dotproxy has two upstreams. The second is unbound; the first behaves differently in each row.
Clients send 300 queries per second, each for a new name, and the table shows the number of answers
and the response times. In the last row both upstreams are killed for ten seconds and restarted;
the row shows the time until the first answer.

  scripts/chaos.py [--seconds 20] [--binary PATH] [--policy NAME] [--check] [--promises]

Needs the packages of scripts/install_test_deps.sh. --check exits with 1 if a query was not
answered while one upstream was healthy, or after both had recovered and the first answer had
arrived. --promises does so also if one query in a hundred took more than 400 ms, or answers
resumed late: that depends on the load of the machine.
"""

import argparse
import asyncio
import os
import re
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from testbed import PATIENCE_S, ROOT, ask, free_port, make_certificates, query, start_unbound, stop

PER_SECOND = 300
P99_MAX_S = 0.4
RETURN_MAX_S = 1.0
OUTAGE_S = 10


class Upstream:
    """An upstream with its own port: here one that refuses connections."""

    def __init__(self, work):
        self.work, self.port = work, free_port()

    async def start(self):
        pass

    async def stop(self):
        pass


class Hole(Upstream):
    """An upstream that drops all packets."""

    async def start(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(0)
        # The kernel drops connections beyond the accept queue.
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)

    async def stop(self):
        for one in [self.listener, *self.fillers]:
            one.close()


class Deaf(Upstream):
    """An upstream that accepts connections and never answers."""

    async def start(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(128)

    async def stop(self):
        self.listener.close()


class Server(Upstream):
    """A DoT server that answers `answers` queries on a connection, each after `delay` seconds
    and with this code."""

    def __init__(self, work, answers=None, delay=0.0, rcode=0):
        super().__init__(work)
        self.answers, self.delay, self.rcode = answers, delay, rcode

    async def start(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{self.work}/server.pem", f"{self.work}/server.key")
        context.set_alpn_protocols(["dot"])
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, ssl=context)

    async def serve(self, reader, writer):
        loop, asked = asyncio.get_running_loop(), 0
        try:
            while True:
                length = struct.unpack("!H", await reader.readexactly(2))[0]
                message = await reader.readexactly(length)
                asked += 1
                if self.answers is None or asked <= self.answers:
                    loop.call_later(self.delay, self.reply, writer, self.answer(message))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    @staticmethod
    def reply(writer, answer):
        if not writer.is_closing():
            writer.write(answer)

    def answer(self, message):
        end = message.index(b"\0", 12) + 5
        records = int(self.rcode == 0)
        header = message[:2] + struct.pack("!HHHHH", 0x8180 | self.rcode, 1, records, 0, 0)
        record = b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\1"
        whole = header + message[12:end] + record * records
        return struct.pack("!H", len(whole)) + whole

    async def stop(self):
        self.server.close()


class Unbound(Upstream):
    """unbound, which is killed with SIGKILL."""

    async def start(self):
        self.process = start_unbound(self.work, self.port)
        await connectable(self.port)

    async def stop(self):
        self.process.kill()
        self.process.wait()


async def connectable(port):
    """Waits until a server listens on this port of 127.0.0.1."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            return writer.close()
        except OSError:
            if time.monotonic() > end:
                sys.exit(f"no server listens on port {port}")
            await asyncio.sleep(0.02)


class Flapping(Unbound):
    """unbound, killed and started again every two seconds."""

    async def start(self):
        await super().start()
        self.flaps = asyncio.create_task(self.flap())

    async def flap(self):
        while True:
            await asyncio.sleep(2)
            await super().stop()
            await asyncio.sleep(2)
            await super().start()

    async def stop(self):
        self.flaps.cancel()
        await super().stop()


class Clients(asyncio.DatagramProtocol):
    """Sends queries at this rate and records the responses."""

    def __init__(self):
        self.sent, self.waited, self.answered_at = {}, [], []
        self.errors, self.number = [], 0

    def connection_made(self, transport):
        self.transport = transport
        # Responses wait here while this process is busy.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def datagram_received(self, data, _):
        number = struct.unpack("!H", data[:2])[0]
        start = self.sent.pop(number, None)
        if start is None:
            return
        now = time.monotonic()
        if data[3] & 15 == 0 and data[6:8] != b"\0\0":
            self.waited.append(now - start)
            self.answered_at.append(now)
        else:
            self.errors.append((start, now))

    async def ask(self, seconds):
        start = time.monotonic()
        for nth in range(int(seconds * PER_SECOND)):
            await asyncio.sleep(max(0.0, start + nth / PER_SECOND - time.monotonic()))
            self.number = (self.number + 1) % 65536
            self.sent[self.number] = time.monotonic()
            self.transport.sendto(query(self.number, f"n{self.number}.chaos.example.net"))

    async def settle(self):
        end = time.monotonic() + PATIENCE_S
        while self.sent and time.monotonic() < end:
            await asyncio.sleep(0.1)


class Proxy:
    """dotproxy in front of these upstreams."""

    def __init__(self, work, arguments, upstreams):
        self.port, self.log = free_port(), f"{work}/dotproxy.log"
        command = [arguments.binary, "-l", "127.0.0.1", "-p", str(self.port), "-v",
                   "--ca-file", f"{work}/ca.pem", "--policy", arguments.policy,
                   "--cache-size", "0"]
        for upstream in upstreams:
            command += ["-u", f"127.0.0.1:{upstream.port}#dot.example"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self.await_lines("will be queried", 1)

    def await_answer(self):
        """Waits for a connection to a healthy upstream: without one, an error of the other
        upstream is delivered at once."""
        end = time.monotonic() + PATIENCE_S
        while ask(self.port, f"ready{time.monotonic_ns()}.chaos.example.net") is None:
            if time.monotonic() > end:
                sys.exit("dotproxy does not answer")
            time.sleep(0.02)

    def await_lines(self, text, number):
        """Returns the last line of the log with this text, once there are `number` of them."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with open(self.log) as log:
                lines = [line for line in log if text in line and line.endswith("\n")]
            if len(lines) >= number:
                return lines[-1]
            time.sleep(0.02)
        sys.exit(f"dotproxy has not logged {text!r}")

    def counted(self):
        """Returns the number of additional attempts, by reason."""
        with open(self.log) as log:
            before = sum("queries udp=" in line for line in log)
        self.process.send_signal(signal.SIGUSR1)
        line = self.await_lines("queries udp=", before + 1)
        return {name: int(re.search(rf"{name}=(\d+)", line)[1])
                for name in ["retries", "hedges", "copies"]}


async def clients_of(proxy):
    loop = asyncio.get_running_loop()
    _, clients = await loop.create_datagram_endpoint(
        Clients, remote_addr=("127.0.0.1", proxy.port))
    return clients


async def chaos(work, arguments, first):
    """Measures a row with one kind of upstream. Returns the row and whether it meets the limits."""
    healthy = Unbound(work)
    await healthy.start()
    await first.start()
    proxy = Proxy(work, arguments, [first, healthy])
    try:
        # The first upstream may run in this process.
        await asyncio.to_thread(proxy.await_answer)
        clients = await clients_of(proxy)
        await clients.ask(arguments.seconds)
        await clients.settle()
        counted = proxy.counted()
    finally:
        stop(proxy.process)
        await first.stop()
        await healthy.stop()
    waited = sorted(clients.waited)
    asked = len(waited) + len(clients.errors) + len(clients.sent)
    p99 = waited[len(waited) * 99 // 100]
    twice = counted["retries"] + counted["copies"]
    print(f"{first.label:28}{asked:>8}{asked - len(waited):>8}"
          f"{statistics.median(waited) * 1e3:>8.1f} ms{p99 * 1e3:>8.1f} ms"
          f"{waited[-1] * 1e3:>8.0f} ms{100 * twice / asked:>9.1f} %", flush=True)
    return asked == len(waited) and (p99 <= P99_MAX_S or not arguments.promises)


async def outage(work, arguments):
    """Measures the row in which both upstreams are killed and restarted."""
    both = [Unbound(work), Unbound(work)]
    for one in both:
        await one.start()
    proxy = Proxy(work, arguments, both)
    try:
        clients = await clients_of(proxy)
        asking = asyncio.create_task(clients.ask(OUTAGE_S + 2 * PATIENCE_S))
        await asyncio.sleep(3)
        for one in both:
            await one.stop()
        await asyncio.sleep(OUTAGE_S)
        for one in both:
            one.process = start_unbound(one.work, one.port)
        back = time.monotonic()
        while clients.answered_at[-1] < back and time.monotonic() < back + PATIENCE_S:
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        asking.cancel()
        await clients.settle()
    finally:
        stop(proxy.process)
        for one in both:
            await one.stop()
    after = [at - back for at in clients.answered_at if at > back]
    first = after[0] if after else float("inf")
    late = [at - back for _, at in clients.errors if at > back + RETURN_MAX_S]
    lost = [asked for asked, _ in clients.errors if asked > back + first + RETURN_MAX_S]
    print(f"\nboth killed for {OUTAGE_S} s: first answer {first * 1e3:.0f} ms after they were started "
          f"again, {len(late)} errors later than {RETURN_MAX_S:.0f} s after that")
    if arguments.promises:
        return first <= RETURN_MAX_S and not late
    return bool(after) and not lost and not clients.sent


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--policy", default="fastest")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--promises", action="store_true")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        rows = {
            "is well": Unbound(work),
            "refuses connections": Upstream(work),
            "is a black hole": Hole(work),
            "accepts and says nothing": Deaf(work),
            "never answers": Server(work, answers=0),
            "stalls after 100 answers": Server(work, answers=100),
            "takes 300 ms": Server(work, delay=0.3),
            "is killed every 2 s": Flapping(work),
            "answers SERVFAIL": Server(work, rcode=2),
            "answers REFUSED": Server(work, rcode=5),
        }
        print(f"{'the first upstream':28}{'queries':>8}{'failed':>8}{'median':>11}{'p99':>11}"
              f"{'slowest':>11}{'sent twice':>11}")
        is_right = True
        for label, first in rows.items():
            first.label = label
            is_right &= await chaos(work, arguments, first)
        is_right &= await outage(work, arguments)
    is_checked = arguments.check or arguments.promises
    sys.exit(1 if is_checked and not is_right else 0)


if __name__ == "__main__":
    asyncio.run(main())
