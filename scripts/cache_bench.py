#!/usr/bin/env python3
"""Measures the cost of the cache: processor time as it grows, and memory when it is full.

A hit must cost the same with a hundred names and with a hundred thousand names, if memory is
ample. Both are compared within a round, with the program on its own processor, since the speed of
machines varies; the median of several rounds counts, and more rounds follow while the target is
missed. Then a million names that are queried once pass through a cache of 1 MiB and through no
cache: the anonymous memory afterwards differs by at most 1.2 MB. The resident part of the binary
varies with and without a cache.

  scripts/cache_bench.py [--binary PATH] [--check]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from bench import load
from testbed import (ROOT, PATIENCE_S, apart, ask, await_at_most, free_port, make_certificates, processor_time,
                     processor_times, resident_kib, start_unbound, stop)

SIZES = [100, 1_000, 10_000, 100_000]
HITS = 200_000
# The tolerance: the maximum difference between two rounds.
ROUNDS, ROUNDS_MAX = 9, 40
UNIQUE = 1_000_000
SPREAD_MAX = 0.10
# The number of client sockets.
SOCKETS = 8
MEMORY_MAX_KIB = 1_200_000 / 1024


class Proxy:
    def __init__(self, work, binary, upstream, size, *more, port=None):
        self.port = port or free_port()
        self.process = subprocess.Popen(
            [binary, "-l", "127.0.0.1", "-p", str(self.port), "-u", f"127.0.0.1:{upstream}#dot.example",
             "--ca-file", f"{work}/ca.pem", "--cache-size", size, *more], stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if ask(self.port, "ready.example.com", 0.2) is not None:
                return
            time.sleep(0.05)
        sys.exit("dotproxy does not answer")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)


def write_names(path, names):
    with open(path, "w") as file:
        file.writelines(f"{name} A\n" for name in names)
    return path


def cost_of_hit(proxy, names, count, hits=HITS):
    """Returns microseconds of processor time: in total, and in user mode by a coarser clock."""
    times = lambda: (processor_time(proxy.process.pid), processor_times(proxy.process.pid)[0])
    before = times()
    result = load(proxy.port, names, hits // count, SOCKETS)
    return [(after - before) * 1e6 / result["completed"] for before, after in zip(before, times())]


def spread(costs):
    """Returns the additional cost of a hit among many names compared with few, as a fraction."""
    whole = {size: [whole for whole, _ in rounds] for size, rounds in costs.items()}
    more = ([many / few for many, few in zip(whole[size], whole[SIZES[0]])] for size in SIZES)
    return max(statistics.median(ratios) for ratios in more) - 1


def measure_growth(work, binary, upstream):
    costs = {size: [] for size in SIZES}
    with Proxy(work, binary, upstream, "64m") as proxy:
        for size in SIZES:
            names = (f"hot{n * (SIZES[-1] // size):06}.example.net" for n in range(size))
            load(proxy.port, write_names(f"{work}/hot{size}", names), 1, SOCKETS)
        with apart(proxy.process.pid):
            for nth in range(ROUNDS_MAX):
                if nth >= ROUNDS and spread(costs) <= SPREAD_MAX:
                    break
                for size in SIZES:
                    costs[size].append(cost_of_hit(proxy, f"{work}/hot{size}", size))
    print(f"{'names':>8}{'CPU a hit':>13}{'its own':>11}{'rounds':>8}")
    for size, rounds in costs.items():
        whole, own = (statistics.median(one) for one in zip(*rounds))
        print(f"{size:>8}{whole:>10.2f} µs{own:>8.2f} µs{len(rounds):>8}")
    print(f"at most {spread(costs):.1%} more with many names")
    return spread(costs)


def measure_export_cost(work, binary, upstream):
    """Prints the cost of a hit with metrics and with the query log."""
    names = write_names(f"{work}/told", (f"t{n:07}.example.net" for n in range(SIZES[0])))
    ways = {"nothing": (), "metrics": ("--http-listen", f"127.0.0.1:{free_port()}"),
            "query log": ("--query-log", f"{work}/queries.json")}
    costs = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, arguments in ways.items():
            with Proxy(work, binary, upstream, "1m", *arguments) as proxy, apart(proxy.process.pid):
                load(proxy.port, names, 1, SOCKETS)
                costs[way].append(cost_of_hit(proxy, names, SIZES[0], HITS // 2)[0])
    costs = {way: statistics.median(rounds) for way, rounds in costs.items()}
    for way, cost in costs.items():
        print(f"a hit with {way}: {cost:.2f} µs ({cost / costs['nothing']:.2f})")


def measure_memory(work, binary, upstream):
    names = write_names(f"{work}/unique", (f"u{n:07}.example.net" for n in range(UNIQUE)))
    resident = {}
    for size in "0", "1m":
        with Proxy(work, binary, upstream, size) as proxy:
            before = sum(processor_times(proxy.process.pid))
            result = load(proxy.port, names, 1, SOCKETS)
            used = sum(processor_times(proxy.process.pid)) - before
            # The memory of a burst is released after a second, or when its connections are closed.
            time.sleep(4)
            resident[size] = await_at_most(resident.get("0", 0) + MEMORY_MAX_KIB,
                                           lambda: resident_kib(proxy.process.pid, "RssAnon"))
            whole = resident_kib(proxy.process.pid)
            print(f"{result['completed']} names through --cache-size {size:2}: {resident[size]} KiB "
                  f"of its own, {whole} KiB resident, {used * 1e6 / result['completed']:.2f} µs a name, "
                  f"{result['lost']} lost")
    return resident["1m"] - resident["0"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        port = free_port()
        upstream = start_unbound(work, port)
        try:
            time.sleep(1)
            growth = measure_growth(work, arguments.binary, port)
            measure_export_cost(work, arguments.binary, port)
            more = measure_memory(work, arguments.binary, port)
        finally:
            stop(upstream)
    broken = []
    if growth > SPREAD_MAX:
        broken.append(f"a hit costs {growth:.0%} more with many names")
    if more > MEMORY_MAX_KIB:
        broken.append(f"a cache of 1 MiB needs {more} KiB")
    print("\n".join(broken))
    sys.exit(1 if arguments.check and broken else 0)


if __name__ == "__main__":
    main()
