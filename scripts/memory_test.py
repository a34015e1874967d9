#!/usr/bin/env python3
"""Checks --memory-limit under load: the process stays within it, and every query gets a response.

The upstream answers everything with 60 KB. At the same time run a flood of new names over UDP, TCP
clients that send as many queries as allowed and never read, clients that disconnect early, and
clients that read. The peak of resident memory counts. If memory control groups are available, the
process runs in one with its limit plus an allowance for its sockets in the kernel.

  scripts/memory_test.py [--binary PATH] [--limit SIZE] [--seconds 10]
"""

import argparse
import collections
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from testbed import PATIENCE_S, ROOT, exchange, free_port, make_certificates, query, resident_kib, stop

ANSWER_LEN = 60_000
# Bytes for the kernel, mostly for sockets.
KERNEL = 24 << 20
GROUPS = "/sys/fs/cgroup/memory"


def long_answer(question):
    """60 KB of records of a type that dotproxy does not parse."""
    end = question.index(b"\0", 12) + 5
    header = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
    data = bytes(ANSWER_LEN)
    return header + question[12:end] + b"\xc0\x0c\xff\x01\0\1\0\0\1\x2c" + struct.pack("!H", len(data)) + data


def read_exactly(stream, length):
    data = b""
    while len(data) < length:
        part = stream.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


class Upstream(threading.Thread):
    """A DoT server that sends large answers."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(f"{work}/server.pem", f"{work}/server.key")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]

    def run(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        try:
            with self.context.wrap_socket(stream, server_side=True) as tls:
                while True:
                    length, = struct.unpack("!H", read_exactly(tls, 2))
                    answer = long_answer(read_exactly(tls, length))
                    tls.sendall(struct.pack("!H", len(answer)) + answer)
        except (OSError, EOFError):
            pass


def framed(name):
    message = query(random.randrange(1 << 16), name)
    return struct.pack("!H", len(message)) + message


class Crowd:
    """Clients of several kinds, for a given time."""

    def __init__(self, port, seconds):
        self.port, self.end = port, time.time() + seconds
        self.seen = collections.Counter()
        self.threads = [threading.Thread(target=kind) for kind, count in
                        ((self.flood, 2), (self.read, 4), (self.never_read, 4), (self.hang_up, 2))
                        for _ in range(count)]

    def go(self):
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join()

    def is_on(self):
        return time.time() < self.end

    def connect(self):
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        return stream

    def flood(self):
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.connect(("127.0.0.1", self.port))
            udp.settimeout(PATIENCE_S)
            while self.is_on():
                for _ in range(50):
                    udp.send(query(7, f"u{random.random()}.example.org"))
                self.seen["asked over UDP"] += 50
                for _ in range(50):
                    try:
                        self.seen[f"rcode {udp.recv(4096)[3] & 15} over UDP"] += 1
                    except TimeoutError:
                        self.seen["silence over UDP"] += 1

    def read(self):
        while self.is_on():
            try:
                with self.connect() as stream:
                    # Some clients send the same question at the same time.
                    stream.sendall(framed(f"r{int(time.time() * 4)}.example.org") * 8)
                    for _ in range(8):
                        length, = struct.unpack("!H", read_exactly(stream, 2))
                        self.seen[f"rcode {read_exactly(stream, length)[3] & 15} over TCP"] += 1
            except TimeoutError:
                self.seen["silence over TCP"] += 1
            except (OSError, EOFError):
                self.seen["hung up over TCP"] += 1

    def never_read(self):
        held = collections.deque()
        while self.is_on():
            try:
                held.append(self.connect())
                held[-1].sendall(framed(f"n{random.random()}.example.org") + framed("same.example.org") * 70)
                self.seen["never read"] += 1
            except OSError:
                self.seen["turned away"] += 1
            if len(held) > 40:
                held.popleft().close()
            time.sleep(0.005)

    def hang_up(self):
        while self.is_on():
            try:
                with self.connect() as stream:
                    stream.sendall(framed(f"h{random.random()}.example.org") * 20 + b"\0")
                    self.seen["hung up"] += 1
            except OSError:
                self.seen["turned away"] += 1
            time.sleep(0.005)


def make_group(limit):
    """Creates a control group with this memory limit in bytes, if possible."""
    path = f"{GROUPS}/dotproxy-{os.getpid()}"
    try:
        os.mkdir(path)
        with open(f"{path}/memory.limit_in_bytes", "w") as file:
            file.write(str(limit))
        return path
    except OSError:
        return None


def counters(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        lines = page.read().decode().splitlines()
    found = collections.Counter()
    for line in lines:
        if line and line[0] != "#":
            name, number = line.split("{")[0].split()[0], line.rsplit(" ", 1)[1]
            found[name] += float(number)
    return found


def await_end(port):
    """Returns the counters once no query is in flight and each has its outcome, or after a
    timeout."""
    end = time.monotonic() + PATIENCE_S
    while True:
        values = counters(port)
        is_over = (not values["dotproxy_inflight_queries"]
                   and values["dotproxy_queries_total"] == values["dotproxy_query_outcomes_total"])
        if is_over or time.monotonic() > end:
            return values
        time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", default=f"{ROOT}/target/{os.uname().machine}-unknown-linux-musl/release/dotproxy")
    parser.add_argument("--limit", default="4m")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    size = int(arguments.limit[:-1]) << {"k": 10, "m": 20}[arguments.limit[-1]]
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        upstream = Upstream(work)
        upstream.start()
        port, http = free_port(), free_port()
        group = make_group(size + KERNEL)
        enter = lambda: group and open(f"{group}/cgroup.procs", "w").write(str(os.getpid()))
        process = subprocess.Popen(
            [arguments.binary, "-l", "127.0.0.1", "-p", str(port), "-u", f"127.0.0.1:{upstream.port}#dot.example",
             "--ca-file", f"{work}/ca.pem", "--http-listen", f"127.0.0.1:{http}", "--memory-limit",
             arguments.limit], preexec_fn=enter)
        try:
            end = time.monotonic() + PATIENCE_S
            # The response is truncated, and `ask` accepts only whole answers.
            while exchange(port, query(1, "ready.example.com"), 1)[0] is None:
                if time.monotonic() > end:
                    sys.exit("dotproxy does not answer")
                time.sleep(0.05)
            idle = resident_kib(process.pid)
            crowd = Crowd(port, arguments.seconds)
            crowd.go()
            seen, values = crowd.seen, await_end(http)
            peak, rest = resident_kib(process.pid, "VmHWM"), resident_kib(process.pid)
        finally:
            stop(process)
            if group:
                os.rmdir(group)
    for what, count in sorted(seen.items()):
        print(f"{count:8} {what}")
    print(f"{idle} KiB when idle, {peak} at most, {rest} afterwards"
          + ("" if group else "; no control group is available"))
    wrong = []
    if peak * 1024 > size:
        wrong.append(f"{peak} KiB are more than {arguments.limit}")
    if values["dotproxy_inflight_queries"]:
        wrong.append("queries are left")
    if values["dotproxy_queries_total"] != values["dotproxy_query_outcomes_total"]:
        wrong.append("not every query has ended")
    if seen["silence over UDP"] or seen["silence over TCP"]:
        wrong.append("some queries got no response")
    if process.returncode != 0:
        wrong.append(f"the process ended with {process.returncode}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
