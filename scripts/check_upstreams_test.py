#!/usr/bin/env python3
"""Checks --check-upstreams with real servers: unbound, dnsdist, knot-resolver, nginx, nsd and OpenSSL 4.

A small tree of zones is signed for the columns about DNSSEC. Each value that is printed is compared with
the settings of its server.

  scripts/check_upstreams_test.py [--binary PATH]

Prints the tables and the checks that failed, and exits with 1 if one did. As root, the program also
changes to another user. Needs the packages of scripts/install_test_deps.sh.
"""

import argparse
import contextlib
import email.utils
import json
import os
import pty
import subprocess
import sys
import tempfile
import time

import dnssec_tree
import doh_test
import key_exchange_test
from testbed import ROOT, free_port, make_certificates, run, stop

ZONES = {"tld1": ("-a ECDSAP256SHA256", "", ""), ".": ("-a ECDSAP256SHA256", "", "")}
FEW_STREAMS = doh_test.FEW_STREAMS
QUERIES_AT_ONCE = 64
NAME = "dot.example"


def start_tree(stack, work):
    """Starts an authoritative server of a signed tree, a resolver with DNS over TLS, and one that validates.
    Returns the port of the first, and the ports for TLS of the others."""
    tree = dnssec_tree.Tree(work, ZONES, [])
    anchor = os.path.join(work, "anchor")
    with open(anchor, "w") as file:
        file.write(tree.ds["."])
    authoritative = free_port()
    stack.callback(stop, dnssec_tree.start_server(work, authoritative, tree.files))
    ports = {"plain": free_port(), "tls": free_port()}
    resolver = dnssec_tree.start_resolver(work, ports, authoritative, tree.files)
    stack.callback(stop, resolver)
    dnssec_tree.await_answer(ports["plain"], resolver, "www.tld1")
    plain, tls = free_port(), free_port()
    settings = f"""  module-config: "validator iterator"
  trust-anchor-file: "{anchor}"
  interface: 127.0.0.1@{tls}
  tls-port: {tls}
  tls-service-key: "{work}/server.key"
  tls-service-pem: "{work}/server.pem"
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{ports["plain"]}
"""
    validator = dnssec_tree.start(work, "validator", plain, settings)
    stack.callback(stop, validator)
    dnssec_tree.await_answer(plain, validator, "www.tld1")
    return authoritative, ports["tls"], tls


class Checks:
    def __init__(self):
        self.number, self.failed = 0, 0

    def expect(self, label, condition, detail=""):
        self.number += 1
        if not condition:
            self.failed += 1
            print("FAIL", label, detail)


def run_check(binary, work, upstreams, *options):
    command = [binary, "--check-upstreams", f"--ca-file={work}/ca.pem", *options]
    if os.geteuid() == 0:
        command.append("--user=daemon")
    return [*command, *(f"--upstream={upstream}" for upstream in upstreams)]


def on_terminal(command):
    """Runs a command with standard error on a terminal. Returns what it wrote there, and the exit code."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end)
    os.close(end)
    written = b""
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 4096):
            written += data
    os.close(terminal)
    return written.decode(), process.wait()


def of_text(text):
    """Returns the first words of the rows of both tables."""
    return [[line.split()[:2] for line in table.splitlines()[1:]] for table in text.split("\n\n")[:2]]


def check_servers(stack, work, binary, checks):
    os.chmod(work, 0o755)
    authoritative, resolver, validator = start_tree(stack, work)
    doh_test.start_unbound_https(stack, work)
    few_https, few_tls = doh_test.start_unbound_few_streams(stack, work)
    dnsdist_https, dnsdist_tls = doh_test.start_dnsdist(stack, work)
    knot_https, knot_tls = doh_test.start_knot_resolver(stack, work)
    nginx_https, nginx_tls = doh_test.start_nginx(stack, work)
    for port in [few_https, dnsdist_https, knot_https, nginx_https]:
        doh_test.await_doh(work, port)
    for port in [few_tls, dnsdist_tls, knot_tls, nginx_tls]:
        doh_test.await_dot(work, port)
    openssl = key_exchange_test.Upstream(work)
    openssl.start()
    closed = free_port()

    signed = {"tls_version": "TLS 1.3", "resumed": True, "pipelined": QUERIES_AT_ONCE, "edns_size": 1232,
              "client_subnet": False, "rcode": "NOERROR"}
    unsigned = {**signed, "dnssec_validates": False, "dnssec_signatures": False}
    expected = {
        f"127.0.0.1:{resolver}": {**signed, "dnssec_validates": False, "dnssec_signatures": True},
        f"127.0.0.1:{validator}": {**signed, "dnssec_validates": True, "dnssec_signatures": True},
        f"https://127.0.0.1:{few_https}": {**unsigned, "pipelined": FEW_STREAMS},
        f"127.0.0.1:{knot_tls}": unsigned,
        f"https://127.0.0.1:{knot_https}": unsigned,
        f"https://127.0.0.1:{dnsdist_https}#{NAME}": unsigned,
        f"https://127.0.0.1:{nginx_https}": {"resumed": True, "pipelined": QUERIES_AT_ONCE},
        # dnsdist may leave queries unread that arrive together.
        f"127.0.0.1:{dnsdist_tls}#{NAME}": {**unsigned, "pipelined": None},
        f"127.0.0.1:{nginx_tls}": {"resumed": True, "pipelined": QUERIES_AT_ONCE},
        f"127.0.0.1:{openssl.port}": {"key_exchange": "X25519MLKEM768", "pipelined": 1},
        f"udp://127.0.0.1:{authoritative},domain=tld1":
            {"dnssec_validates": False, "dnssec_signatures": True, "pipelined": QUERIES_AT_ONCE},
        f"tcp://127.0.0.1:{authoritative},domain=tld1,dnssec":
            {"dnssec_validates": False, "dnssec_signatures": True, "pipelined": QUERIES_AT_ONCE},
    }
    start = time.time()
    ended = subprocess.run(run_check(binary, work, expected), capture_output=True, text=True)
    took = time.time() - start
    print(ended.stdout + ended.stderr)
    checks.expect("all servers work", ended.returncode == 0, f"exit code {ended.returncode}")
    ended = subprocess.run(run_check(binary, work, expected, "--log-format=json"), capture_output=True, text=True)
    report = json.loads(ended.stdout)
    checks.expect("JSON is one line", ended.stdout.count("\n") == 1)
    checks.expect("JSON says that all work", report["works"] and report["failed"] == 0 and ended.returncode == 0)
    expires = run("openssl", "x509", "-in", f"{work}/server.pem", "-noout", "-enddate").strip().split("=")[1]
    expires = email.utils.mktime_tz(email.utils.parsedate_tz(expires))
    for (upstream, values), found in zip(expected.items(), report["upstreams"]):
        label = upstream.split(",")[0]
        checks.expect(f"{label}: in order", found["upstream"] == label, found["upstream"])
        [address] = found["addresses"]
        for name, value in values.items():
            if value is not None:
                checks.expect(f"{label}: {name} is {value}", address.get(name) == value, address)
        checks.expect(f"{label}: has no warning", address["warnings"] == [], address["warnings"])
        if not label.startswith(("udp", "tcp")):
            checks.expect(f"{label}: certificate is known", address["certificate_name"] == NAME
                          and address["certificate_expires_at"] == expires
                          and address["certificate_days"] == int(expires - time.time()) // 86400, address)
        times = [address[name] for name in ["query_seconds", "second_handshake_seconds"]]
        checks.expect(f"{label}: times are plausible", all(0 < seconds < took for seconds in times), address)

    upstreams = [f"127.0.0.1:{resolver}", f"127.0.0.1:{closed}"]
    ended = subprocess.run(run_check(binary, work, upstreams), capture_output=True, text=True)
    checks.expect("a failed upstream is exit code 1", ended.returncode == 1)
    checks.expect("its reason is printed", f"127.0.0.1:{closed} at 127.0.0.1:{closed}: connection failed" in ended.stdout)
    rows = [[upstream] * 2 for upstream in upstreams]
    checks.expect("the tables have the rows of connected addresses", of_text(ended.stdout) == [rows, rows[:1]],
                  ended.stdout)
    checks.expect("nothing else is on standard error without a terminal",
                  ended.stderr == "dotproxy: --check-upstreams: 1 of 2 upstreams failed\n", repr(ended.stderr))
    written, code = on_terminal(run_check(binary, work, upstreams))
    checks.expect("a terminal shows the progress", code == 1 and
                  f"checking 1 of 2: 127.0.0.1:{resolver}: querying" in written and
                  f"checking 2 of 2: 127.0.0.1:{closed}: connecting" in written, repr(written))
    checks.expect("the progress is cleared", "\r\x1b[Kdotproxy: --check-upstreams: 1 of 2" in written, repr(written))

    signed_only = run_check(binary, work, [f"127.0.0.1:{knot_tls}"], "--dnssec=on")
    ended = subprocess.run(signed_only, capture_output=True, text=True)
    checks.expect("--dnssec needs signatures", ended.returncode == 1 and "without signatures (RRSIG)" in ended.stdout,
                  ended.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    binary = parser.parse_args().binary
    checks = Checks()
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory())
        make_certificates(work)
        check_servers(stack, work, binary, checks)
    print(f"{checks.number} checks, {checks.failed} failed")
    sys.exit(checks.failed > 0)


if __name__ == "__main__":
    main()
