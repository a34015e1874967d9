#!/usr/bin/env python3
"""Compares dotproxy with forwarders packaged in Debian, in front of the same DNS-over-TLS upstream.

The figure that is comparable between machines is processor time per query (user and system, all
threads), relative to the other programs of the same run: load generator, upstream and proxy share
the machine. The programs take turns in several rounds, and the median counts: a query costs half as
much if the load generator happens to run on the same processor as the program.

  forwarded     100,000 new names, 200 queries outstanding, from eight sockets
  kept          the same with a cache, which stores the answers
  cached        10,000 names repeatedly, as above
  one socket    the same from one socket: with fewer sockets, more responses leave in one batch
  over TCP      the same from eight TCP connections
  new sessions  one query at a time; the upstream closes after each, so that TLS is resumed

Most of the cost of an answer is in the kernel. Two programs show this part: examples/udp_echo.rs only
sends each datagram back, and examples/bare_forwarder.rs only forwards queries over TLS. Latency is that of single queries to an idle proxy; p99
is that of single queries while others arrive at half the throughput of the first program, unbound;
the median of three measurements counts.

Memory is measured while 100 queries a second flow, since only then what the program needs is
resident: "resident" includes its code, its libraries and its constants, which processes and the page
cache share; "private" is the anonymous part, which the process has for itself.

With --closed-loop, a number of queries is outstanding, and each response triggers the next query
(examples/closed_loop.rs). For each number of queries and sockets the table shows throughput, mean
latency and processor time per query, cached and forwarded. Programs take turns in each round, and
the median of the rounds counts.

With --paced, queries arrive one by one at a fixed rate, as in most networks: 100, 1,000 and 10,000 a
second. The table shows processor time per query and mean latency, cached and forwarded.

  scripts/bench.py [--rounds 3] [--peers NAME,...|all] [--binary LABEL=PATH ...]
                   [--workloads NAME,...] [--check] [--json FILE] [--svg FILE]
  scripts/bench.py --closed-loop [--rounds 3] [--seconds 0.5] [--peers ...] [--binary ...]
                   [--workloads cached,forwarded] [--check] [--json FILE]
  scripts/bench.py --paced [--rounds 3] [--peers ...] [--binary ...] [--workloads cached,forwarded]
                   [--json FILE]

Needs the packages of scripts/install_test_deps.sh. Programs of --peers that are not installed are
skipped. Without --binary, the script measures the existing release builds, dynamic and static, and
the examples (cargo build --release --examples). --check runs more rounds while dotproxy misses a
target, and exits with 1 if a target is still missed: scripts/promises.sh runs it. The target with
--closed-loop is at least the throughput of the best peer at each load.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import plot
from peers import PEERS, Settings
from testbed import (PATIENCE_S, ROOT, ask, free_port, make_certificates, memory_kib, processor_time, processor_times,
                     resident_kib, run, start_unbound, stop)

QUERIES = 100_000
HOT_NAMES, HOT_TIMES = 10_000, 15
OUTSTANDING = 200
SINGLE_QUERIES = 1000
SESSIONS, SESSION_PAUSE = 40, 0.12
# Memory is measured at this rate of queries, after this time: dotproxy releases the memory of its
# start after a second. It depends on where the kernel maps the program, so the program is started
# several times.
MEMORY_QPS, MEMORY_PAUSE_S = 100, 3
MEMORY_STARTS = 3
# The number of measurements of the latency under load.
UNDER_LOAD_TIMES = 3
# The maximum number of rounds while a target is not met.
ROUNDS_MAX = 3

# The load of each workload: the number of sockets and their behaviour.
LOADS = {"forwarded": (8, "udp"), "kept": (8, "udp"), "cached": (8, "udp"), "one socket": (1, "udp"),
         "over TCP": (8, "tcp")}
WORKLOADS = [*LOADS, "new sessions"]
COLD = ["forwarded", "kept"]
PROMISED = ["forwarded", "cached", "one socket"]

# Samples of the memory within a second, at each start.
MEMORY_SAMPLES = 5

# The targets of dotproxy: processor time against unbound, memory in KiB with one upstream and an
# empty cache, size of the binary in bytes.
CPU_RATIO_MAX = {"forwarded": 0.22, "cached": 0.66, "one socket": 0.6}
OWN_CPU_RATIO_MAX = {"forwarded": 0.32, "cached": 0.7, "one socket": 0.7}
# Of the dynamic binary, up to 2 MB are libraries that all processes share. The kernel maps files in groups
# of 64 KiB, so one program has up to 90 KiB more in one start than in another.
RESIDENT_KIB_MAX = {"static": 2_120_000 // 1024, "dynamic": 4_080_000 // 1024}
ANONYMOUS_KIB_MAX = 330_000 // 1024
ECHO, ECHO_RATIO_MAX = "bare echo", 1.25
BARE_FORWARDER = "bare forwarder"
GROWTH_KIB_MAX = 512
STATIC_BYTES_MAX = 2_580_000

# The loads of --closed-loop: queries outstanding, sockets.
CLOSED_LOOPS = [(1, 1), (4, 1), (8, 1), (16, 1), (16, 16), (32, 1), (64, 64), (200, 8)]
CLOSED_LOOP = f"{ROOT}/target/release/examples/closed_loop"

# The loads of --paced: queries per second, and for how many seconds.
PACES = {100: 10, 1_000: 5, 10_000: 3}


def load(port, names, times, sockets, mode="udp", rate=None, seconds=2):
    """Queries the names of a file this number of times with dnsperf, or at this rate for this time.
    Returns the results."""
    limits = ["-Q", str(rate), "-l", str(seconds)] if rate else ["-n", str(times)]
    out = run("dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", names, "-m", mode, "-c", str(sockets),
              "-T", "1", "-t", "5", "-q", str(OUTSTANDING), *limits)
    number = lambda pattern: float(re.search(pattern, out)[1])
    return {
        "completed": int(number(r"Queries completed:\s+(\d+)")),
        "lost": int(number(r"Queries lost:\s+(\d+)")),
        "qps": number(r"Queries per second:\s+([\d.]+)"),
        "mean_latency_us": number(r"Average Latency \(s\):\s+([\d.]+)") * 1e6,
    }


class Program:
    """A program under test."""

    def __init__(self, label, command, workloads, conf=None, kind=None, size=None):
        self.label, self.command, self.workloads = label, command, workloads
        # The path of the settings file, and the function that writes it.
        self.conf = conf
        self.kind, self.size = kind, size
        self.rounds = {workload: [] for workload in workloads}
        self.resident_kib, self.anonymous_kib = [], []

    def start(self, work, upstream, workload):
        """Starts the program and waits for its first answer. Returns the process and its port."""
        port = free_port()
        has_cache = workload not in ("forwarded", "new sessions")
        # The cache of knot-resolver outlives the process.
        shutil.rmtree(f"{work}/kresd", ignore_errors=True)
        os.makedirs(f"{work}/kresd")
        if self.conf:
            place, write = self.conf
            os.makedirs(os.path.dirname(f"{work}/{place}"), exist_ok=True)
            with open(f"{work}/{place}", "w") as file:
                file.write(write(Settings(work, port, upstream, has_cache)))
        # The workload "kept" uses the default cache size.
        cache = {"forwarded": "0", "new sessions": "0", "kept": "1m"}.get(workload, "4m")
        command = [part.format(work=work, port=port, upstream=upstream, cache=cache)
                   for part in self.command]
        out = f"{work}/{self.label}.out"
        with open(out, "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=work)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if ask(port, "ready.example.com", 0.2) is not None:
                return process, port
            time.sleep(0.05)
        process.kill()
        with open(out) as log:
            sys.exit(f"{self.label} does not answer:\n{log.read()}")

    def measure_memory(self, work, upstream):
        """Measures memory while few queries flow, of new names, without a cache if possible."""
        workload = "forwarded" if "forwarded" in self.workloads else "cached"
        for _ in range(MEMORY_STARTS):
            process, port = self.start(work, upstream, workload)
            arguments = (port, f"{work}/cold.names", 1, 1, "udp", MEMORY_QPS, MEMORY_PAUSE_S + 2)
            asking = threading.Thread(target=load, args=arguments)
            try:
                asking.start()
                time.sleep(MEMORY_PAUSE_S)
                # On a busy machine, queries arrive in bursts, whose memory is released afterwards.
                for _ in range(MEMORY_SAMPLES):
                    resident, anonymous = memory_kib(process.pid)
                    self.resident_kib.append(resident)
                    self.anonymous_kib.append(anonymous)
                    time.sleep(1 / MEMORY_SAMPLES)
                asking.join()
            finally:
                stop(process)

    def memory(self):
        """Returns resident and anonymous memory in KiB, the medians of all samples."""
        return statistics.median(self.resident_kib), statistics.median(self.anonymous_kib)

    def measure(self, work, upstreams, workload):
        is_anew = workload == "new sessions"
        process, port = self.start(work, upstreams[is_anew], workload)
        try:
            way = self.measure_sessions if is_anew else self.measure_load
            self.rounds[workload].append(way(work, process.pid, port, workload))
        finally:
            stop(process)

    def measure_sessions(self, _, pid, port, __):
        latencies, before = [], processor_time(pid)
        for nth in range(SESSIONS):
            time.sleep(SESSION_PAUSE)
            latencies.append(ask(port, f"s{nth}.sessions.example.com"))
        used = processor_time(pid) - before
        answered = [latency for latency in latencies if latency is not None]
        return {
            "completed": len(answered),
            "lost": SESSIONS - len(answered),
            "cpu_us": used * 1e6 / SESSIONS,
            "latency_us": statistics.median(answered) * 1e6,
            "after_kib": resident_kib(pid),
        }

    def measure_load(self, work, pid, port, workload):
        sockets, mode = LOADS[workload]
        is_cold = workload in COLD
        names, times = (f"{work}/cold.names", 1) if is_cold else (f"{work}/hot.names", HOT_TIMES)
        if not is_cold:
            load(port, names, 1, sockets)
        single = "l{}.single.example.com" if is_cold else "hot{}.example.net"
        latencies = [ask(port, single.format(n)) for n in range(SINGLE_QUERIES)]
        before, own_before = processor_time(pid), processor_times(pid)[0]
        result = load(port, names, times, sockets, mode)
        used, own = processor_time(pid) - before, processor_times(pid)[0] - own_before
        # dotproxy releases the memory of a burst when the connections of the burst are closed.
        time.sleep(4 if self.kind and is_cold else 0.5)
        completed = max(1, result["completed"])
        return {
            "cpu_us": used * 1e6 / completed,
            "own_cpu_us": own * 1e6 / completed,
            "latency_us": statistics.median(l for l in latencies if l is not None) * 1e6,
            "after_kib": resident_kib(pid),
            **result,
        }

    def measure_under_load(self, work, upstream, workload, rate):
        """Returns the 99th of a hundred latencies at this rate of queries, in microseconds."""
        process, port = self.start(work, upstream, workload)
        names = f"{work}/{'cold' if workload in COLD else 'hot'}.names"
        sockets, mode = LOADS[workload]
        try:
            asking = threading.Thread(target=load, args=(port, names, 1, sockets, mode, rate))
            asking.start()
            time.sleep(0.3)
            latencies = []
            while asking.is_alive():
                latencies.append(ask(port, f"p{len(latencies)}.single.example.com"))
                time.sleep(0.002)
            latencies = sorted(5.0 if latency is None else latency for latency in latencies)
            return latencies[len(latencies) * 99 // 100] * 1e6
        finally:
            stop(process)

    def measure_closed_loops(self, work, upstream, workload, seconds):
        """Runs one round of every closed loop."""
        process, port = self.start(work, upstream, workload)
        fresh = "1" if workload in COLD else "0"
        closed_loop = lambda outstanding, sockets, length: [float(number) for number in run(
            CLOSED_LOOP, str(port), str(outstanding), str(sockets), str(length), fresh).split()]
        try:
            # Fills the cache and opens the connections.
            closed_loop(32, 1, 0.5)
            for outstanding, sockets in CLOSED_LOOPS:
                before = processor_time(process.pid)
                qps, latency_us, latency_max_us = closed_loop(outstanding, sockets, seconds)
                used = processor_time(process.pid) - before
                self.rounds.setdefault(f"{workload} {outstanding}/{sockets}", []).append({
                    "qps": qps, "latency_us": latency_us, "latency_max_us": latency_max_us,
                    "cpu_us": used * 1e6 / max(1, qps * seconds)})
        finally:
            stop(process)

    def measure_paced(self, work, upstream, workload):
        """Runs one round at each rate."""
        process, port = self.start(work, upstream, workload)
        try:
            if workload not in COLD:
                load(port, f"{work}/hot.names", 1, 8)
            for rate, seconds in PACES.items():
                names = f"{work}/{f'paced-{rate}' if workload in COLD else 'hot'}.names"
                before = processor_time(process.pid)
                result = load(port, names, 1, 1, "udp", rate, seconds)
                used = processor_time(process.pid) - before
                self.rounds.setdefault(f"{workload} {rate}", []).append({
                    "cpu_us": used * 1e6 / max(1, result["completed"]), "latency_us": result["mean_latency_us"],
                    "lost": result["lost"]})
        finally:
            stop(process)

    def memory_problems(self):
        resident, anonymous = self.memory()
        if resident > RESIDENT_KIB_MAX[self.kind]:
            yield f"{self.label}: {resident:.0f} KiB resident, not {RESIDENT_KIB_MAX[self.kind]}"
        if anonymous > ANONYMOUS_KIB_MAX:
            yield f"{self.label}: {anonymous:.0f} KiB anonymous, not {ANONYMOUS_KIB_MAX}"
        if self.kind == "static" and self.size > STATIC_BYTES_MAX:
            yield f"{self.label}: {self.size} bytes, not {STATIC_BYTES_MAX}"

    def median(self, workload, key):
        return statistics.median(one[key] for one in self.rounds[workload] if key in one)

    def has(self, workload, key):
        return any(key in one for one in self.rounds[workload])


def programs(arguments, workloads):
    wanted = [peer.label for peer in PEERS] if arguments.peers == "all" else arguments.peers.split(",")
    found = []
    for peer in (peer for peer in PEERS if peer.label in wanted):
        if shutil.which(peer.command[0]):
            found.append(Program(peer.label, peer.command, [w for w in workloads if w in peer.workloads],
                                 conf=(peer.place, peer.conf)))
        else:
            print(f"{peer.label} is not installed: skipped")
    echo = f"{ROOT}/target/release/examples/udp_echo"
    if os.path.exists(echo):
        found.append(Program(ECHO, [echo, "{port}"], [w for w in workloads if w in ("cached", "one socket")]))
    bare = f"{ROOT}/target/release/examples/bare_forwarder"
    if os.path.exists(bare):
        command = [bare, "{port}", "{upstream}", "dot.example", "{work}/ca.pem"]
        found.append(Program(BARE_FORWARDER, command, [w for w in workloads if w == "forwarded"]))
    binaries = [binary.split("=", 1) for binary in arguments.binary]
    if not binaries:
        machine = os.uname().machine
        places = {
            "dotproxy": f"{ROOT}/target/release/dotproxy",
            "dotproxy-static": f"{ROOT}/target/{machine}-unknown-linux-musl/release/dotproxy",
        }
        binaries = [(label, path) for label, path in places.items() if os.path.exists(path)]
    if not binaries:
        sys.exit("no binary found: run cargo build --release")
    for label, path in binaries:
        with open(path, "rb") as file:
            is_static = b"ld-linux" not in file.read()
        command = [os.path.abspath(path), "-l", "127.0.0.1", "-p", "{port}", "-u",
                   "127.0.0.1:{upstream}#dot.example", "--ca-file", "{work}/ca.pem",
                   "--cache-size", "{cache}"]
        found.append(Program(label, command, workloads, kind="static" if is_static else "dynamic",
                             size=os.path.getsize(path)))
    return found


def table(found, workload):
    found = [program for program in found if workload in program.workloads]
    reference = found[0].median(workload, "cpu_us")
    print(f"{workload:17}{'CPU a query':>12}{'against':>9}{'its own':>10}{'queries/s':>11}{'lost':>6}"
          f"{'latency':>10}{'p99':>10}{'resident':>11}{'private':>10}{'after load':>12}{'binary':>10}")
    for program in found:
        shown = lambda key, width, unit, decimals=0: (
            f"{program.median(workload, key):>{width}.{decimals}f}{unit}" if program.has(workload, key)
            else " " * (width + len(unit)))
        against = program.median(workload, "cpu_us") / reference
        lost = sum(one["lost"] for one in program.rounds[workload])
        size = f"{program.size / 1e6:.2f} MB" if program.size else ""
        resident, anonymous = program.memory()
        print(f"{program.label:17}{shown('cpu_us', 9, ' µs', 2)}{against:>9.2f}"
              f"{shown('own_cpu_us', 7, ' µs', 2)}{shown('qps', 11, '')}{lost:>6}"
              f"{shown('latency_us', 7, ' µs')}{shown('p99_us', 7, ' µs')}"
              f"{resident:>7.0f} KiB{anonymous:>6.0f} KiB{shown('after_kib', 8, ' KiB')}{size:>10}")


def broken_promises(found, workloads):
    unbound = found[0]
    for program in (program for program in found if program.kind):
        for workload in (workload for workload in PROMISED if workload in workloads):
            ratio = lambda key: program.median(workload, key) / unbound.median(workload, key)
            for key, most in ("cpu_us", CPU_RATIO_MAX), ("own_cpu_us", OWN_CPU_RATIO_MAX):
                if ratio(key) > most[workload]:
                    yield (f"{program.label}: {workload}, {key} is {ratio(key):.2f} of unbound's, "
                           f"not {most[workload]}")
            if any(one["lost"] for one in program.rounds[workload]):
                yield f"{program.label}: {workload}, queries were lost"
        for echo in (one for one in found if one.label == ECHO and "cached" in workloads):
            ratio = program.median("cached", "cpu_us") / echo.median("cached", "cpu_us")
            if ratio > ECHO_RATIO_MAX:
                yield f"{program.label}: cached, {ratio:.2f} of a bare echo, not {ECHO_RATIO_MAX}"
        yield from program.memory_problems()
        if "forwarded" in workloads and program.median("forwarded", "after_kib") - program.memory()[0] > GROWTH_KIB_MAX:
            yield f"{program.label}: more than {GROWTH_KIB_MAX} KiB more after the load"


def measure(found, workloads, arguments, work):
    port, hasty = free_port(), free_port()
    also = ["interface: 127.0.0.2@853", "tls-additional-port: 853"] if os.geteuid() == 0 else []
    resolvers = [start_unbound(work, port, *also), start_unbound(work, hasty, "tcp-idle-timeout: 50")]
    try:
        time.sleep(1)
        for number in range(max(arguments.rounds, ROUNDS_MAX if arguments.check else 0)):
            if number >= arguments.rounds and not list(broken_promises(found, workloads)):
                break
            for program in found:
                program.measure_memory(work, port)
                for workload in program.workloads:
                    program.measure(work, (port, hasty), workload)
        # There is no target for the latency under load.
        under_load = [] if arguments.check else [workload for workload in workloads if workload in LOADS]
        for workload in under_load:
            those = [program for program in found if workload in program.workloads]
            rate = those[0].median(workload, "qps") / 2
            for program in those:
                # A program with less throughput than this rate has no meaningful latency.
                if program.median(workload, "qps") > rate:
                    times = [program.measure_under_load(work, port, workload, round(rate))
                             for _ in range(UNDER_LOAD_TIMES)]
                    program.rounds[workload][-1]["p99_us"] = statistics.median(times)
    finally:
        for resolver in resolvers:
            stop(resolver)


def closed_loop_table(found, workload):
    those = [program for program in found if workload in program.workloads]
    print(f"{workload:16}" + "".join(f"{program.label:>33}" for program in those))
    print(f"{'queries/sockets':16}" + f"{'queries/s':>12}{'latency':>10}{'CPU':>11}" * len(those))
    for outstanding, sockets in CLOSED_LOOPS:
        load = f"{workload} {outstanding}/{sockets}"
        print(f"{outstanding:>10}/{sockets:<5}" + "".join(
            f"{program.median(load, 'qps'):>12,.0f}{program.median(load, 'latency_us'):>7,.0f} µs"
            f"{program.median(load, 'cpu_us'):>8.2f} µs" for program in those))


def slower_than_peers(found, workloads):
    """Yields the closed loops in which dotproxy has less throughput than the best peer."""
    for workload in workloads:
        peers = [program for program in found if not program.kind and workload in program.workloads]
        for load in (f"{workload} {outstanding}/{sockets}" for outstanding, sockets in CLOSED_LOOPS):
            best = max(peers, key=lambda peer: peer.median(load, "qps"), default=None)
            for program in (program for program in found if program.kind and best):
                own, other = program.median(load, "qps"), best.median(load, "qps")
                if own < other:
                    yield f"{program.label}: {load}, {own:,.0f} queries/s, {best.label} has {other:,.0f}"


def measure_closed_loops(arguments):
    if not os.path.exists(CLOSED_LOOP):
        sys.exit("the load generator is missing: run cargo build --release --examples")
    workloads = arguments.workloads.split(",") if arguments.workloads else ["cached", "forwarded"]
    # The echo program does not answer questions.
    found = [program for program in programs(arguments, workloads) if program.label != ECHO]
    rounds = max(arguments.rounds, ROUNDS_MAX if arguments.check else 0)
    with only_resolver() as (work, port):
        for number in range(rounds):
            if number >= arguments.rounds and not list(slower_than_peers(found, workloads)):
                break
            for program, workload in pairs(found, workloads):
                program.measure_closed_loops(work, port, workload, arguments.seconds)
    for workload in workloads:
        closed_loop_table(found, workload)
    write_rounds(found, arguments)
    broken = list(slower_than_peers(found, workloads))
    for promise in broken:
        print(promise)
    sys.exit(1 if arguments.check and broken else 0)


def measure_paced_loads(arguments):
    workloads = arguments.workloads.split(",") if arguments.workloads else ["cached", "forwarded"]
    found = programs(arguments, workloads)
    with only_resolver() as (work, port):
        write_names(work)
        for rate, seconds in PACES.items():
            with open(f"{work}/paced-{rate}.names", "w") as file:
                file.writelines(f"u{n:07}.at{rate}.example.net A\n" for n in range(rate * seconds))
        for _ in range(arguments.rounds):
            for program, workload in pairs(found, workloads):
                program.measure_paced(work, port, workload)
    for workload in workloads:
        paced_table(found, workload)
    write_rounds(found, arguments)


@contextlib.contextmanager
def only_resolver():
    """Starts the resolver. Returns the folder of the settings, and the port of the resolver."""
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        port = free_port()
        also = ["interface: 127.0.0.2@853", "tls-additional-port: 853"] if os.geteuid() == 0 else []
        resolver = start_unbound(work, port, *also)
        try:
            time.sleep(1)
            yield work, port
        finally:
            stop(resolver)


def pairs(found, workloads):
    return [(program, workload) for workload in workloads for program in found if workload in program.workloads]


def write_rounds(found, arguments):
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({program.label: program.rounds for program in found}, file, indent=1)


def paced_table(found, workload):
    print(f"{workload:17}" + "".join(f"{f'{rate:,} q/s':>22}" for rate in PACES) + f"{'lost':>6}")
    for program in (program for program in found if workload in program.workloads):
        loads = [f"{workload} {rate}" for rate in PACES]
        lost = sum(one["lost"] for load in loads for one in program.rounds[load])
        print(f"{program.label:17}" + "".join(
            f"{program.median(load, 'cpu_us'):>9.1f} µs{program.median(load, 'latency_us'):>7.0f} µs" for load in loads)
            + f"{lost:>6}")


def write_names(work):
    """Writes the names that are queried once, and those that are queried repeatedly."""
    with open(f"{work}/cold.names", "w") as file:
        file.writelines(f"u{n:07}.miss.example.net A\n" for n in range(QUERIES))
    with open(f"{work}/hot.names", "w") as file:
        file.writelines(f"hot{n}.example.net A\n" for n in range(HOT_NAMES))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="unbound")
    parser.add_argument("--workloads")
    parser.add_argument("--binary", action="append", default=[], metavar="LABEL=PATH")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--closed-loop", action="store_true")
    parser.add_argument("--paced", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each closed loop")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--svg", metavar="FILE")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    if arguments.closed_loop:
        return measure_closed_loops(arguments)
    if arguments.paced:
        return measure_paced_loads(arguments)
    workloads = arguments.workloads.split(",") if arguments.workloads else WORKLOADS
    found = programs(arguments, workloads)
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        write_names(work)
        measure(found, workloads, arguments, work)
    for workload in workloads:
        table(found, workload)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({program.label: {"rounds": program.rounds, "resident_kib": program.resident_kib,
                                       "anonymous_kib": program.anonymous_kib} for program in found}, file, indent=1)
    if arguments.svg:
        costs = {workload: {program.label: program.median(workload, "cpu_us") for program in found
                            if workload in program.workloads} for workload in workloads}
        with open(arguments.svg, "w") as file:
            file.write(plot.bars("processor time per query, in microseconds", costs))
    broken = list(broken_promises(found, workloads))
    for promise in broken:
        print(promise)
    sys.exit(1 if arguments.check and broken else 0)


if __name__ == "__main__":
    main()
