#!/usr/bin/env python3
"""Measures the cost of DNSSEC validation beside unbound, in one run.

A zone with 27,000 names is signed with P-256 and NSEC, and a zone of the same size is not signed. An
unbound without validation resolves both over TLS. dotproxy with --dnssec on, dotproxy with --dnssec
off, and an unbound that validates forward to it. The script prints the processor time per query:

  secure     signed names, each asked once; the keys are known
  insecure   names below a known insecure delegation, each asked once
  cached     the same signed names again
  denied     names that do not exist in the signed zone, after each of its NSEC records was seen

  scripts/dnssec_bench.py [--binary PATH] [--names N] [--check]

With --check, it exits with 1 if a target is not met: `secure` at most 0.6 of unbound's time,
`insecure` at most 1.5 us above that of --dnssec off, `denied` at most 1.2 of `cached`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from statistics import median

from bench import load
from dnssec_tree import Tree, await_answer, start, start_resolver, start_server
from testbed import ROOT, free_port, make_certificates, processor_time, stop

P256 = ("-a ECDSAP256SHA256", "", "")
SECURE_MAX, INSECURE_MAX_US, DENIED_MAX = 0.6, 1.5, 1.2
SOCKETS = 8
# The medians of the rounds count: one round varies by a third, with the number of queries that wait
# when the program wakes up.
ROUNDS = 9


# An answer from a cache costs a few microseconds: this many answers for each name make a sample of
# which one delay is a small part.
REPEATS = 8


def write_names(path, names):
    with open(path, "w") as file:
        file.writelines(f"{name} A\n" for name in names)
    return path


def start_dotproxy(binary, work, tls_port, anchor, mode):
    port = free_port()
    command = [binary, "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{tls_port}",
               "--ca-file", f"{work}/ca.pem", "--cache-size", "64m", "--dnssec", mode]
    if mode != "off":
        command += ["--trust-anchor", anchor]
    return port, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start_unbound(work, tls_port, anchor):
    port = free_port()
    settings = f'  module-config: "validator iterator"\n  trust-anchor-file: "{anchor}"\n'
    settings += f'  msg-cache-size: 64m\n  rrset-cache-size: 64m\n  tls-cert-bundle: "{work}/ca.pem"\n'
    settings += "  aggressive-nsec: yes\n"
    settings += 'forward-zone:\n  name: "."\n  forward-tls-upstream: yes\n'
    settings += f"  forward-addr: 127.0.0.1@{tls_port}#dot.example\n"
    return port, start(work, "validator", port, settings)


def measure(process, port, names, times=1):
    """Returns the processor time per completed query in microseconds."""
    before = processor_time(process.pid)
    result = load(port, names, times, SOCKETS)
    used = processor_time(process.pid) - before
    if result["lost"]:
        program, kind = os.path.basename(process.args[0]), os.path.basename(names)
        print(f"{program}, {kind}: {result['lost']} queries are lost")
    return used * 1e6 / max(1, result["completed"])


def measure_round(programs, names, nth):
    """Returns the costs of a round by program and kind.

    Each kind is measured of one program after the other, so that the compared figures come from
    the same moments of the machine. The order changes with the round, because a program that
    follows a busy one appears slower.
    """
    costs = {label: {} for label in programs}
    order = list(programs)[nth % len(programs):] + list(programs)[:nth % len(programs)]

    def measure_kind(kind, of_names, times=1):
        for label in order:
            port, process = programs[label]
            costs[label][kind] = measure(process, port, names[of_names], times)

    measure_kind("secure", "secure")
    measure_kind("insecure", "insecure")
    measure_kind("cached", "secure", REPEATS)
    for port, _ in programs.values():
        load(port, names["denied before"], 1, SOCKETS)
    measure_kind("denied", "denied")
    return costs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--names", type=int, default=27_000)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    numbers = range(arguments.names)
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        more = "".join(f"n{n} IN A 192.0.2.7\n" for n in numbers)
        tree = Tree(work, {"big.tld1": P256, "tld1": P256, ".": P256}, ["plain.tld1"],
                    {"big.tld1": more, "plain.tld1": more})
        anchor = os.path.join(work, "anchor")
        with open(anchor, "w") as file:
            file.write(tree.ds["."])
        forms = {"secure": ["n{}.big.tld1"], "insecure": ["n{}.plain.tld1"],
                 "denied before": ["n{}-a.big.tld1"],
                 "denied": [f"n{{}}-b{nth}.big.tld1" for nth in range(REPEATS)]}
        first = write_names(f"{work}/first.names", ["www.big.tld1", "www.plain.tld1"])
        # Each round has names of its own.
        rounds = [{kind: write_names(f"{work}/{kind}.{nth}.names",
                                     (form.format(n) for form in of_kind for n in numbers[nth::ROUNDS]))
                   for kind, of_kind in forms.items()} for nth in range(ROUNDS)]
        server_port, ports = free_port(), {"plain": free_port(), "tls": free_port()}
        server = start_server(work, server_port, tree.files)
        caches = "  msg-cache-size: 200m\n  rrset-cache-size: 200m\n"
        resolver = start_resolver(work, ports, server_port, tree.files, caches)
        try:
            await_answer(ports["plain"], resolver, "www.big.tld1")
            for files in rounds:
                # The denied names are answered from the NSEC records, so the resolver is not asked.
                for kind in ("secure", "insecure", "denied before"):
                    load(ports["plain"], files[kind], 1, SOCKETS)
            programs = {
                "dotproxy on": start_dotproxy(arguments.binary, work, ports["tls"], anchor, "on"),
                "dotproxy off": start_dotproxy(arguments.binary, work, ports["tls"], anchor, "off"),
                "unbound": start_unbound(work, ports["tls"], anchor),
            }
            for port, process in programs.values():
                await_answer(port, process, "www.big.tld1")
                # The keys and the insecure delegation are known.
                load(port, first, 1, 1)
            measured = [measure_round(programs, names, nth) for nth, names in enumerate(rounds)]
            for label, (_, process) in programs.items():
                stop(process)
                medians = {kind: median(one[label][kind] for one in measured) for kind in measured[0][label]}
                shown = "  ".join(f"{kind} {cost:7.2f}" for kind, cost in medians.items())
                print(f"{label:13} {shown}  (us per query)", flush=True)
        finally:
            stop(resolver)
            stop(server)
    # Figures of the same round are compared.
    results = [
        ("secure, of unbound",
         median(one["dotproxy on"]["secure"] / one["unbound"]["secure"] for one in measured), SECURE_MAX),
        ("insecure, us above off",
         median(one["dotproxy on"]["insecure"] - one["dotproxy off"]["insecure"] for one in measured),
         INSECURE_MAX_US),
        ("denied, of cached",
         median(one["dotproxy on"]["denied"] / one["dotproxy on"]["cached"] for one in measured), DENIED_MAX),
    ]
    for label, value, most in results:
        print(f"{label}: {value:.2f} (at most {most})")
    return int(arguments.check and any(value > most for _, value, most in results))


if __name__ == "__main__":
    sys.exit(main())
