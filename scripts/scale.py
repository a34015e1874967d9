#!/usr/bin/env python3
"""Measures the cost of a query as the load grows: curves of processor time and memory, ideally flat.

  outstanding   queries that wait at the same time, 1 to 10,000, cached and forwarded
  answers       in the cache, 100 to 1,000,000
  TCP clients   that are connected at the same time, up to 10,000, and the memory of each
  processes     one and two on the same port (--reuse-port)

  scripts/scale.py [--binary PATH] [--rounds 3] [--json FILE] [--svg FILE]

The minimum of several rounds counts, since other load on the machine only adds to the cost.
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import struct
import sys
import tempfile
import time

import plot
from cache_bench import Proxy, write_names
from testbed import (ROOT, ask, free_port, make_certificates, processor_time, query, resident_kib, run,
                     start_unbound, stop)

OUTSTANDING = [1, 10, 100, 1_000, 10_000]
ANSWERS = [100, 1_000, 10_000, 100_000, 1_000_000]
CLIENTS = [100, 1_000, 10_000]
QUERIES, FEW_QUERIES = 200_000, 20_000
CLIENT_BYTES_MAX = 2048


def load(port, names, outstanding, times):
    """Queries these names this number of times. Returns the number of answered queries."""
    if outstanding == 1:
        # dnsperf sleeps between single queries.
        with open(names) as file:
            asked = [line.split()[0] for line in file] * times
        return sum(ask(port, name) is not None for name in asked)
    out = run("dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", names, "-c", str(min(outstanding, 64)), "-T", "1",
              "-t", "5", "-q", str(outstanding), "-n", str(times))
    line = next(line for line in out.splitlines() if "Queries completed:" in line)
    return int(line.split()[2])


def cost(proxies, *how):
    """Returns microseconds of processor time per query."""
    before = sum(processor_time(proxy.process.pid) for proxy in proxies)
    completed = load(proxies[0].port, *how)
    return (sum(processor_time(proxy.process.pid) for proxy in proxies) - before) * 1e6 / max(1, completed)


class Scale:
    def __init__(self, work, binary, upstream, rounds):
        self.work, self.binary, self.upstream, self.rounds = work, binary, upstream, rounds

    def proxy(self, size, *more, port=None):
        return Proxy(self.work, self.binary, self.upstream, size, *more, port=port)

    def outstanding(self, is_cached):
        """Returns the cost of a query by the number of outstanding queries."""
        costs = {}
        with self.proxy("4m" if is_cached else "0", "--max-inflight", "20000") as proxy:
            names = write_names(f"{self.work}/hot", (f"hot{n}.example.net" for n in range(1_000)))
            if is_cached:
                load(proxy.port, names, 100, 1)
            for count in OUTSTANDING:
                queries = QUERIES if count >= 100 else FEW_QUERIES
                rounds = []
                for nth in range(self.rounds):
                    if is_cached:
                        rounds.append(cost([proxy], names, count, queries // 1_000))
                    else:
                        cold = write_names(f"{self.work}/cold", (f"c{count}-{nth}-{n}.example.net"
                                                                 for n in range(queries)))
                        rounds.append(cost([proxy], cold, count, 1))
                costs[count] = min(rounds)
        return costs

    def answers(self):
        """Returns the cost of a hit by the number of cached answers."""
        costs = {}
        with self.proxy("512m") as proxy:
            for count in ANSWERS:
                names = write_names(f"{self.work}/known", (f"hot{n:07}.example.net" for n in range(count)))
                load(proxy.port, names, 200, 1)
                costs[count] = min(cost([proxy], names, 200, max(1, QUERIES // count))
                                   for _ in range(self.rounds))
        return costs

    def clients(self):
        """Returns the bytes per TCP client and the cost of a query, by the number of connected
        clients."""
        size_by_count, costs = {}, {}
        for count in CLIENTS:
            with self.proxy("64k", "--max-tcp-clients", "20000") as proxy, contextlib.ExitStack() as stack:
                time.sleep(1.5)
                before = resident_kib(proxy.process.pid, "RssAnon")
                streams = []
                for nth in range(count):
                    stream = socket.socket()
                    # One address may not hold all connections.
                    stream.bind((f"127.0.{nth % 200 + 1}.1", 0))
                    stream.connect(("127.0.0.1", proxy.port))
                    streams.append(stack.enter_context(stream))
                # The time is shorter than the idle timeout.
                message = query(7, "hot0.example.net")
                used = processor_time(proxy.process.pid)
                for stream in streams:
                    stream.sendall(struct.pack("!H", len(message)) + message)
                for stream in streams:
                    if len(stream.recv(4096)) < 14:
                        sys.exit(f"one of {count} TCP clients has no response")
                costs[count] = (processor_time(proxy.process.pid) - used) * 1e6 / count
                size_by_count[count] = (resident_kib(proxy.process.pid, "RssAnon") - before) * 1024 / count
        return size_by_count, costs

    def processes(self):
        """Returns the cost of a hit and the hits per second, by the number of processes on one
        port."""
        found = {}
        names = write_names(f"{self.work}/hot", (f"hot{n}.example.net" for n in range(1_000)))
        for count in 1, 2:
            with self.proxy("4m", "--reuse-port") as first, contextlib.ExitStack() as stack:
                proxies = [first]
                for _ in range(count - 1):
                    proxies.append(stack.enter_context(self.proxy("4m", "--reuse-port", port=first.port)))
                load(first.port, names, 200, 3)
                rounds = []
                for _ in range(self.rounds):
                    start = time.time()
                    one = cost(proxies, names, 200, QUERIES // 1_000)
                    rounds.append((one, QUERIES / (time.time() - start)))
                found[count] = (min(one for one, _ in rounds), max(rate for _, rate in rounds))
        return found


def show(title, costs, unit="µs"):
    print(f"{title:12}" + "".join(f"{count:>14,}" for count in costs))
    print(" " * 12 + "".join(f"{one:>11.2f} {unit}" for one in costs.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--svg", metavar="FILE")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16), hard))
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        port = free_port()
        upstream = start_unbound(work, port)
        try:
            time.sleep(1)
            scale = Scale(work, arguments.binary, port, arguments.rounds)
            curves = {"cached, by queries outstanding": scale.outstanding(True),
                      "forwarded, by queries outstanding": scale.outstanding(False),
                      "cached, by answers known": scale.answers()}
            size_by_count, curves["cached, by TCP clients"] = scale.clients()
            processes = scale.processes()
        finally:
            stop(upstream)
    for title, costs in curves.items():
        print(title)
        show("", costs)
    print("bytes per TCP client")
    show("", size_by_count, " B")
    for count, (one, rate) in processes.items():
        print(f"{count} {'process' if count == 1 else 'processes'}: {one:.2f} µs a hit, {rate:,.0f} per second")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"curves": curves, "octets_a_client": size_by_count, "processes": processes}, file, indent=1)
    if arguments.svg:
        with open(arguments.svg, "w") as file:
            # A single outstanding query needs its own turn of the loop, which is another scale.
            shown = {title: {count: one for count, one in costs.items() if count > 1}
                     for title, costs in curves.items()}
            file.write(plot.curves("processor time per query, in microseconds", shown))
    if size_by_count[CLIENTS[-1]] > CLIENT_BYTES_MAX:
        sys.exit(f"a TCP client needs more than {CLIENT_BYTES_MAX} bytes")


if __name__ == "__main__":
    main()
