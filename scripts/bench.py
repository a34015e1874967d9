#!/usr/bin/env python3
"""dotproxy beside unbound and stubby, all three in front of the same DNS-over-TLS upstream.

The figure that holds on any machine is processor time a query (user and system, the whole process)
compared within one run: load generator, upstream and proxy share the machine. Each program gets the
same 200,000 names that none has seen before, 200 outstanding, in several rounds taken in turn; the
medians are printed. Of processor time it is the least of the rounds, since what else happens on the
machine only adds to it, and what of it is the program's own, not the kernel's. Latency is that of one query at a time to an idle proxy.

Then, without stubby, which has no cache, the same with caches: 10,000 names again and again, from eight
sockets as before, and from one. Nearly all of that is the kernel's; how much shows a program that does
nothing but send each datagram back (examples/udp_echo.rs). The fewer the sockets, the more responses leave
together.

  scripts/bench.py [--rounds 3] [--binary LABEL=PATH ...] [--check] [--json FILE]

Needs the packages of scripts/install_test_deps.sh. Without --binary it takes the release builds that
are there, the dynamic one and the static one, and that of the example (cargo build --release --examples).
--check exits with 1 when dotproxy exceeds what it promises.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from testbed import (ROOT, ask, free_port, make_certificates, processor_times, resident_kib, run,
                     start_unbound, stop)

QUERIES = 200_000
HOT_NAMES, HOT_TIMES = 10_000, 30
OUTSTANDING = 200
# What is resident depends on where the kernel puts the code, so it is started several times.
IDLE_STARTS = 4

# What dotproxy promises: processor time against unbound, resident memory in KiB, octets of a file.
CPU_RATIO_MAX = {"forwarded": 0.3, "cached": 0.85, "one socket": 0.72}
OWN_CPU_RATIO_MAX = {"forwarded": 0.35, "cached": 0.7, "one socket": 0.7}
# How many sockets ask.
SOCKETS = {"forwarded": 8, "cached": 8, "one socket": 1}
IDLE_KIB_MAX = {"static": 2048, "dynamic": 3584}
ECHO, ECHO_RATIO_MAX = "bare echo", 1.25
GROWTH_KIB_MAX = 1024
STATIC_BYTES_MAX = 2_100_000


def unbound_conf(work, port, upstream, workload):
    """Unbound as a forwarder, which keeps nothing unless that is what counts."""
    size, no_cache = ("0", "yes") if workload == "forwarded" else ("64m", "no")
    return f"""
server:
  num-threads: 1
  directory: "{work}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: "{work}/unbound.log"
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  module-config: "iterator"
  tls-cert-bundle: "{work}/ca.pem"
  outgoing-range: 4096
  num-queries-per-thread: 2048
  outgoing-num-tcp: 50
  tcp-reuse-timeout: 60000
  msg-cache-size: {size}
  rrset-cache-size: {size}
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-tls-upstream: yes
  forward-no-cache: {no_cache}
  forward-addr: 127.0.0.1@{upstream}#dot.example
"""


def stubby_conf(work, port, upstream, _):
    return f"""
resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list:
  - GETDNS_TRANSPORT_TLS
tls_authentication: GETDNS_AUTHENTICATION_REQUIRED
tls_query_padding_blocksize: 128
tls_ca_file: "{work}/ca.pem"
round_robin_upstreams: 1
idle_timeout: 10000
listen_addresses:
  - 127.0.0.1@{port}
upstream_recursive_servers:
  - address_data: 127.0.0.1
    tls_port: {upstream}
    tls_auth_name: "dot.example"
"""


def load(port, names, times, sockets):
    out = run("dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", names, "-n", str(times), "-c",
              str(sockets), "-T", "1", "-t", "5", "-q", str(OUTSTANDING))
    number = lambda pattern: float(re.search(pattern, out)[1])
    return {
        "completed": int(number(r"Queries completed:\s+(\d+)")),
        "lost": int(number(r"Queries lost:\s+(\d+)")),
        "qps": number(r"Queries per second:\s+([\d.]+)"),
    }


class Proxy:
    """A program under test."""

    def __init__(self, label, command, conf=None, kind=None, size=None, workloads=tuple(SOCKETS)):
        self.label, self.command, self.conf, self.kind, self.size = label, command, conf, kind, size
        self.workloads = workloads
        self.rounds, self.idle_kib = {workload: [] for workload in SOCKETS}, []

    def start(self, work, upstream, workload):
        """Starts it and waits for its first answer; the process and its port."""
        port = free_port()
        if self.conf:
            path = next(part for part in self.command if part.startswith("{work}"))
            with open(path.format(work=work), "w") as file:
                file.write(self.conf(work, port, upstream, workload))
        cache = "0" if workload == "forwarded" else "4m"
        command = [part.format(work=work, port=port, upstream=upstream, cache=cache)
                   for part in self.command]
        out = f"{work}/{self.label}.out"
        with open(out, "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=work)
        for _ in range(100):
            if ask(port, "ready.example.com", 0.2) is not None:
                return process, port
            time.sleep(0.05)
        process.kill()
        with open(out) as log:
            sys.exit(f"{self.label} does not answer:\n{log.read()}")

    def measure_idle(self, work, upstream):
        for _ in range(IDLE_STARTS):
            process, _ = self.start(work, upstream, "cached")
            time.sleep(0.2)
            self.idle_kib.append(resident_kib(process.pid))
            stop(process)

    def measure(self, work, upstream, workload):
        process, port = self.start(work, upstream, workload)
        is_cold = workload == "forwarded"
        names, times = f"{work}/{'cold' if is_cold else 'hot'}.names", 1 if is_cold else HOT_TIMES
        sockets = SOCKETS[workload]
        try:
            if not is_cold:
                load(port, names, 1, sockets)
            single = "l{}.single.example.com" if is_cold else "hot{}.example.net"
            latencies = [ask(port, single.format(n)) for n in range(1000)]
            before = processor_times(process.pid)
            result = load(port, names, times, sockets)
            own, kernel = (after - before
                           for before, after in zip(before, processor_times(process.pid)))
            time.sleep(0.5)
            completed = max(1, result["completed"])
            self.rounds[workload].append({
                "cpu_us": (own + kernel) * 1e6 / completed,
                "own_cpu_us": own * 1e6 / completed,
                "latency_us": statistics.median(l for l in latencies if l is not None) * 1e6,
                "after_kib": resident_kib(process.pid),
                **result,
            })
        finally:
            stop(process)

    def median(self, workload, key):
        return statistics.median(one[key] for one in self.rounds[workload])

    def least(self, workload, key):
        return min(one[key] for one in self.rounds[workload])


def programs(arguments):
    found = [
        Proxy("unbound", ["unbound", "-d", "-c", "{work}/unbound.conf"], unbound_conf),
    ]
    if not arguments.check:
        # It is slow, and nothing is promised beside it.
        found.append(Proxy("stubby", ["stubby", "-C", "{work}/stubby.yml"], stubby_conf,
                           workloads=("forwarded",)))
    echo = f"{ROOT}/target/release/examples/udp_echo"
    if os.path.exists(echo):
        found.append(Proxy(ECHO, [echo, "{port}"], workloads=("cached", "one socket")))
    binaries = [binary.split("=", 1) for binary in arguments.binary]
    if not binaries:
        machine = os.uname().machine
        places = {
            "dotproxy": f"{ROOT}/target/release/dotproxy",
            "dotproxy-static": f"{ROOT}/target/{machine}-unknown-linux-musl/release/dotproxy",
        }
        binaries = [(label, path) for label, path in places.items() if os.path.exists(path)]
    if not binaries:
        sys.exit("there is no binary: run cargo build --release")
    for label, path in binaries:
        is_static = "dynamically linked" not in run("file", "-L", path) if shutil.which("file") \
            else b"ld-linux" not in open(path, "rb").read()
        command = [os.path.abspath(path), "-l", "127.0.0.1", "-p", "{port}", "-u",
                   "127.0.0.1:{upstream}#dot.example", "--ca-file", "{work}/ca.pem",
                   "--cache-size", "{cache}"]
        kind = "static" if is_static else "dynamic"
        found.append(Proxy(label, command, kind=kind, size=os.path.getsize(path)))
    return found


def table(proxies, workload):
    proxies = [proxy for proxy in proxies if workload in proxy.workloads]
    reference = proxies[0].least(workload, "cpu_us")
    print(f"{workload:17}{'CPU a query':>12}{'against':>9}{'its own':>10}{'queries/s':>11}{'lost':>6}{'latency':>9}"
          f"{'idle':>10}{'after load':>12}{'binary':>12}")
    for proxy in proxies:
        median = lambda key: proxy.median(workload, key)
        cpu, own = (proxy.least(workload, key) for key in ("cpu_us", "own_cpu_us"))
        lost = sum(one["lost"] for one in proxy.rounds[workload])
        size = f"{proxy.size / 1e6:.2f} MB" if proxy.size else ""
        print(f"{proxy.label:17}{cpu:>9.2f} µs{cpu / reference:>9.2f}"
              f"{own:>7.2f} µs{median('qps'):>11.0f}{lost:>6}"
              f"{median('latency_us'):>6.0f} µs{statistics.median(proxy.idle_kib):>6.0f} KiB"
              f"{median('after_kib'):>8.0f} KiB{size:>12}")


def broken_promises(proxies):
    for proxy in (proxy for proxy in proxies if proxy.kind):
        for workload in CPU_RATIO_MAX:
            ratio = lambda key: proxy.least(workload, key) / proxies[0].least(workload, key)
            for key, most in ("cpu_us", CPU_RATIO_MAX), ("own_cpu_us", OWN_CPU_RATIO_MAX):
                if ratio(key) > most[workload]:
                    yield (f"{proxy.label}: {workload}, {key} is {ratio(key):.2f} of unbound's, "
                           f"not {most[workload]}")
            if any(one["lost"] for one in proxy.rounds[workload]):
                yield f"{proxy.label}: {workload}, queries were lost"
        for echo in (one for one in proxies if one.label == ECHO):
            ratio = proxy.least("cached", "cpu_us") / echo.least("cached", "cpu_us")
            if ratio > ECHO_RATIO_MAX:
                yield f"{proxy.label}: cached, {ratio:.2f} of a bare echo, not {ECHO_RATIO_MAX}"
        idle, after = statistics.median(proxy.idle_kib), proxy.median("forwarded", "after_kib")
        if idle > IDLE_KIB_MAX[proxy.kind]:
            yield f"{proxy.label}: {idle} KiB when idle, not {IDLE_KIB_MAX[proxy.kind]}"
        if after - idle > GROWTH_KIB_MAX:
            yield f"{proxy.label}: {after - idle} KiB more after the load, not {GROWTH_KIB_MAX}"
        if proxy.kind == "static" and proxy.size > STATIC_BYTES_MAX:
            yield f"{proxy.label}: {proxy.size} octets, not {STATIC_BYTES_MAX}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", action="append", default=[], metavar="LABEL=PATH")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    proxies = programs(arguments)
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        with open(f"{work}/cold.names", "w") as file:
            file.writelines(f"u{n:07}.miss.example.net A\n" for n in range(QUERIES))
        with open(f"{work}/hot.names", "w") as file:
            file.writelines(f"hot{n}.example.net A\n" for n in range(HOT_NAMES))
        port = free_port()
        upstream = start_unbound(work, port)
        try:
            time.sleep(1)
            for _ in range(arguments.rounds):
                for proxy in proxies:
                    proxy.measure_idle(work, port)
                    for workload in proxy.workloads:
                        proxy.measure(work, port, workload)
        finally:
            stop(upstream)
    for workload in CPU_RATIO_MAX:
        table(proxies, workload)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({proxy.label: {"rounds": proxy.rounds, "idle_kib": proxy.idle_kib}
                       for proxy in proxies}, file, indent=1)
    broken = list(broken_promises(proxies))
    for promise in broken:
        print(promise)
    sys.exit(1 if arguments.check and broken else 0)


if __name__ == "__main__":
    main()
