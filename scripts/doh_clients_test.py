#!/usr/bin/env python3
"""Checks the DNS-over-HTTPS listener of dotproxy with real clients: dig, kdig, curl, h2load, dnsdist and
Chromium, with a client certificate (mutual TLS), and designated resolvers (RFC 9462, RFC 9463) with dig,
dnsmasq and udhcpc.

  scripts/doh_clients_test.py [--binary PATH] [--count 10000]

Prints a line for each check, and exits with 1 if one failed. Needs the packages of
scripts/install_test_deps.sh. The check of DHCP needs network namespaces, so root.
"""

import argparse
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from testbed import (PATIENCE_S, ROOT, ask, free_port, make_certificates, processor_time, query, run,
                     start_unbound, stop)

NAME, PATH = "dot.example", "/dns-query"
# A name with the address of the web server of this test. All other names have 192.0.2.1.
WEB = "web.example"
GREETING = "the page of the test"
# The name and the address of the example in docs/doh.md.
DNR = ["dns.home.example", "192.168.1.1"]


class Failure(Exception):
    """A check that failed, with the reason."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(f"<p>{GREETING}</p>".encode())

    def log_message(self, *_):
        pass


class Scene:
    """unbound, dotproxy with all listeners, and a web server."""

    def __init__(self, stack, binary, work):
        self.work, self.stack = work, stack
        self.upstream, self.plain, self.tls = free_port(), free_port(), free_port()
        self.https, self.metrics = free_port(), free_port()
        unbound = start_unbound(work, self.upstream, f'local-zone: "{WEB}." redirect',
                                f'local-data: "{WEB}. 300 IN A 127.0.0.1"')
        stack.callback(stop, unbound)
        self.binary = binary
        self.process = self.start("dotproxy", f"--listen=127.0.0.1:{self.plain}", f"--tls-listen=127.0.0.1:{self.tls}",
                   f"--https-listen=127.0.0.1:{self.https}", f"--http-listen=127.0.0.1:{self.metrics}",
                   f"--designated={NAME}", "-v")
        self.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        thread = threading.Thread(target=self.web.serve_forever, daemon=True)
        thread.start()
        stack.callback(self.web.shutdown)
        self.await_answer(self.plain)

    def start(self, label, *options):
        """Starts dotproxy in front of unbound."""
        self.log = f"{self.work}/{label}.log"
        with open(self.log, "w") as log:
            process = subprocess.Popen(
                [self.binary, f"--upstream=127.0.0.1:{self.upstream}#{NAME}",
                 f"--ca-file={self.work}/ca.pem", f"--tls-cert={self.work}/server.pem",
                 f"--tls-key={self.work}/server.key", *options], stdout=log, stderr=log)
        self.stack.callback(stop, process)
        return process

    def await_answer(self, port):
        end = time.monotonic() + PATIENCE_S
        while ask(port, "ready.example") is None:
            expect(time.monotonic() < end, f"no answer at port {port}")
            time.sleep(0.05)

    def url(self, path=PATH):
        return f"https://{NAME}:{self.https}{path}"

    def counted(self, transport):
        """Returns the number of queries over a transport."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as page:
            text = page.read().decode()
        pattern = rf'^dotproxy_queries_total\{{transport="{transport}"\}} (\d+)$'
        return int(re.search(pattern, text, re.M)[1])

    def curl(self, *options, url=None, port=None):
        """Returns the output of curl, and its exit code."""
        port = port or self.https
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE_S), "--cacert", f"{self.work}/ca.pem",
             "--resolve", f"{NAME}:{port}:127.0.0.1", *options, url or self.url()],
            capture_output=True, text=True, errors="replace")
        return done.stdout + done.stderr, done.returncode


def check_dig(scene):
    """dig sends POST or GET requests and its own ids."""
    for transport in ["+https", "+https-get"]:
        out = run("dig", "@127.0.0.1", "-p", str(scene.https), transport, f"+tls-ca={scene.work}/ca.pem",
                  f"+tls-hostname={NAME}", "dig.example", "A")
        expect("status: NOERROR" in out and "192.0.2.1" in out, f"dig {transport}:\n{out}")


def check_kdig(scene):
    """kdig sends the id 0, and pads its queries."""
    for transport in ["+https", "+https-get"]:
        out = run("kdig", "@127.0.0.1", "-p", str(scene.https), transport, f"+tls-ca={scene.work}/ca.pem",
                  f"+tls-hostname={NAME}", "+retry=0", "kdig.example", "A")
        expect("status: NOERROR" in out and "192.0.2.1" in out and "PADDING" in out, f"kdig {transport}:\n{out}")


def check_curl(scene):
    """curl resolves the host of a web page over HTTPS."""
    port = scene.web.server_address[1]
    before = scene.counted("https")
    # The proof of the resolver uses the same authority as that of the page.
    out, _ = scene.curl("--doh-url", scene.url(), "--doh-insecure", url=f"http://{WEB}:{port}/")
    expect(GREETING in out, f"curl: {out}")
    expect(scene.counted("https") > before, "curl has not used the listener")


def check_statuses(scene):
    """Requests without a query get the status of their error, and a text."""
    message = f"{scene.work}/message"
    with open(message, "wb") as file:
        file.write(query(0, "status.example"))
    with open(f"{scene.work}/long", "wb") as file:
        file.write(bytes(70_000))
    post = ["-H", "content-type: application/dns-message", "--data-binary"]
    encoded = "AAABAAABAAAAAAAAB2V4YW1wbGUAAAEAAQ"
    for status, options, path in [
        (200, [], f"{PATH}?dns={encoded}"), (200, ["--head"], f"{PATH}?dns={encoded}"),
        (200, [*post, f"@{message}"], PATH), (400, [*post, "abc"], PATH), (400, [], PATH),
        (400, [], f"{PATH}?dns=@@"), (404, [], "/"), (404, [*post, f"@{message}"], "/resolve"),
        (405, ["-X", "PUT"], PATH), (405, ["-X", "DELETE"], f"{PATH}?dns={encoded}"),
        (413, [*post, f"@{scene.work}/long"], PATH), (415, ["--data-binary", f"@{message}"], PATH),
    ]:
        out, _ = scene.curl("--output", f"{scene.work}/page", "--write-out", "%{http_code} %{http_version}",
                            *options, url=scene.url(path))
        expect(out == f"{status} 2", f"curl {options} {path}: {out}, expected {status}")
    head, _ = scene.curl("--head", url=scene.url(f"{PATH}?dns={encoded}"))
    expect("cache-control: max-age=300" in head and "application/dns-message" in head, head)


def check_http1(scene):
    """HTTP/1.1 ends with an alert, or with a clear response if the client sends no ALPN."""
    out, code = scene.curl("--http1.1")
    expect(code == 35 and "no application protocol" in out, f"curl --http1.1: {out}")
    out, code = scene.curl("--http1.1", "--no-alpn", "--include")
    expect("505 HTTP Version Not Supported" in out and "needs HTTP/2" in out, f"curl --no-alpn: {out}")


def check_load(scene, count):
    """h2load keeps 4 connections with 50 streams each."""
    before, started = scene.counted("https"), processor_time(scene.process.pid)
    out = run("h2load", "-n", str(count), "-c", "4", "-m", "50", "-d", f"{scene.work}/message",
              "-H", "content-type: application/dns-message", f"https://127.0.0.1:{scene.https}{PATH}")
    used_s = processor_time(scene.process.pid) - started
    status = re.search(r"status codes: (\d+) 2xx", out)
    expect(status and int(status[1]) == count, f"h2load:\n{out}")
    expect(scene.counted("https") - before == count, "queries were not counted")
    print(f"  h2load: {count} queries, {used_s * 1e6 / count:.1f} us of processor time each")


def check_dnsdist(scene):
    """dnsdist forwards to the listener."""
    port = free_port()
    conf = f"{scene.work}/dnsdist-client.lua"
    with open(conf, "w") as file:
        file.write(f"""
setLocal("127.0.0.1:{port}")
setSecurityPollSuffix("")
newServer({{address="127.0.0.1:{scene.https}", tls="openssl", subjectName="{NAME}", dohPath="{PATH}",
            caStore="{scene.work}/ca.pem", validateCertificates=true, healthCheckMode="up"}})
""")
    with open(f"{scene.work}/dnsdist-client.log", "w") as log:
        process = subprocess.Popen(["dnsdist", "--supervised", "--disable-syslog", "-C", conf], stdout=log,
                                   stderr=log)
    scene.stack.callback(stop, process)
    scene.await_answer(port)
    before = scene.counted("https")
    for number in range(200):
        expect(ask(port, f"d{number}.example", 10) is not None, f"dnsdist: query {number} has no answer")
    expect(scene.counted("https") - before >= 200, "dnsdist has not used the listener")


def check_chromium(scene):
    """Chromium loads a page, whose name it resolves with the listener only (secure mode)."""
    profile = f"{scene.work}/profile"
    os.mkdir(profile)
    template = f"https://127.0.0.1:{scene.https}{PATH}{{?dns}}"
    with open(f"{profile}/Local State", "w") as file:
        json.dump({"dns_over_https": {"mode": "secure", "templates": template}}, file)
    before = scene.counted("https")
    port = scene.web.server_address[1]
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
               "--disable-background-networking", "--ignore-certificate-errors",
               f"--user-data-dir={profile}", "--dump-dom", f"http://{WEB}:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    expect(GREETING in done.stdout, f"Chromium: {done.stdout}\n{done.stderr}")
    expect(scene.counted("https") > before, "Chromium has not used the listener")


def check_mutual_tls(scene):
    """A client without a certificate is refused before its query is read."""
    work, port, metrics = scene.work, free_port(), free_port()
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=laptop",
        "-keyout", "client.key", "-out", "client.csr", cwd=work)
    with open(f"{work}/client.ext", "w") as file:
        file.write("subjectAltName=DNS:laptop.example\nextendedKeyUsage=clientAuth\n")
    run("openssl", "x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "1", "-extfile", "client.ext", "-out", "client.pem", cwd=work)
    plain = free_port()
    scene.start("mutual", f"--listen=127.0.0.1:{plain}", f"--https-listen=127.0.0.1:{port}",
                f"--http-listen=127.0.0.1:{metrics}", f"--tls-client-ca={work}/ca.pem")
    scene.await_answer(plain)
    url = f"https://{NAME}:{port}{PATH}?dns=AAABAAABAAAAAAAAB2V4YW1wbGUAAAEAAQ"
    status = ["--output", f"{work}/page", "--write-out", "%{http_code}"]
    out, code = scene.curl(*status, url=url, port=port)
    expect(code != 0 and "200" not in out, f"curl without a certificate: {out}")
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as page:
        expect('transport="https"} 0\n' in page.read().decode(), "a query was read")
    certificate = ["--cert", f"{work}/client.pem", "--key", f"{work}/client.key"]
    out, _ = scene.curl(*status, *certificate, url=url, port=port)
    expect(out == "200", f"curl with a certificate: {out}")


def check_designated(scene):
    """dig shows the designated resolvers, and their name has the address of the listeners."""
    def dig(*question):
        return run("dig", "@127.0.0.1", "-p", str(scene.plain), "+short", *question)
    path = f'key7="{PATH}{{?dns}}"'
    expected = (f'1 {NAME}. alpn="dot" port={scene.tls} ipv4hint=127.0.0.1\n'
                f'2 {NAME}. alpn="h2" port={scene.https} ipv4hint=127.0.0.1 {path}\n')
    for name in ["_dns.resolver.arpa", f"_dns.{NAME}"]:
        for transport in ["+notcp", "+tcp"]:
            shown = dig(name, "SVCB", transport)
            expect(shown == expected, f"dig {name} {transport}: {shown}")
    expect(dig(NAME, "A") == "127.0.0.1\n", "the name has another address")
    expect(dig(NAME, "ANY", "+notcp") == "127.0.0.1\n", "ANY has another answer")
    for rr_type in ["AAAA", "HTTPS", "TXT"]:
        out = run("dig", "@127.0.0.1", "-p", str(scene.plain), NAME, rr_type)
        expect("status: NOERROR" in out and "ANSWER: 0" in out, f"the name has {rr_type} records:\n{out}")
    out = run("dig", "@127.0.0.1", "-p", str(scene.plain), "_dns.resolver.arpa", "SVCB")
    expect(re.search(rf"^{re.escape(NAME)}\.\s+300\s+IN\s+A\s+127.0.0.1$", out, re.M), f"no address in:\n{out}")


def check_dnr(scene):
    """dnsmasq sends the option of deploy/dnr_option.sh, and udhcpc receives it."""
    name, address = DNR
    line = run("sh", f"{ROOT}/deploy/dnr_option.sh", name, address)
    with open(f"{ROOT}/docs/doh.md") as file:
        expect(line in file.read(), f"docs/doh.md has another option than {line}")
    data = line.strip().split(",")[1].replace(":", "")
    encoded = "".join(f"{len(label):02x}{label.encode().hex()}" for label in name.split(".")) + "00"
    # Length, priority, name, address, ALPN and path (RFC 9463, section 5.1; RFC 9461, section 5).
    instance = (f"0001{len(encoded) // 2:02x}{encoded}04{bytes(map(int, address.split('.'))).hex()}"
                f"0001000703{b'dot'.hex()}02{b'h2'.hex()}00070010{b'/dns-query{?dns}'.hex()}")
    expect(data == f"{len(instance) // 2:04x}{instance}", f"the option is {data}")
    work = scene.work
    with open(f"{work}/dnsmasq.conf", "w") as file:
        file.write(f"port=0\ninterface=server\nbind-interfaces\nleasefile-ro\nuser=root\n"
                   f"dhcp-range=192.168.77.10,192.168.77.20\n{line}")
    with open(f"{work}/lease.sh", "w") as file:
        file.write(f'#!/bin/sh\n[ "$1" != bound ] || echo "$opt162" >{work}/lease\n')
    os.chmod(f"{work}/lease.sh", 0o755)
    script = f"""
set -e
ip link set lo up
ip link add server type veth peer name client
ip addr add 192.168.77.1/24 dev server
ip link set server up
ip link set client up
dnsmasq --keep-in-foreground --conf-file={work}/dnsmasq.conf --pid-file= &
busybox udhcpc -f -q -n -t 20 -T 1 -i client -s {work}/lease.sh -O 162
kill $!
"""
    kinds = [["--net"], ["--net", "--map-root-user"]]
    kinds = [kind for kind in kinds
             if subprocess.run(["unshare", *kind, "true"], stderr=subprocess.DEVNULL).returncode == 0]
    if not kinds:
        return print("  DHCP: skipped, since network namespaces need root or unprivileged user namespaces")
    done = subprocess.run(["unshare", *kinds[0], "sh", "-c", script], capture_output=True, text=True,
                          timeout=2 * PATIENCE_S)
    expect(os.path.exists(f"{work}/lease"), f"no lease:\n{done.stdout}{done.stderr}")
    with open(f"{work}/lease") as file:
        received = file.read().strip()
    expect(received == data, f"udhcpc received {received}, not {data}")


def run_checks(scene, count):
    failed = 0
    for label, check in [
        ("dig", check_dig), ("kdig", check_kdig), ("curl", check_curl), ("statuses", check_statuses),
        ("HTTP/1.1", check_http1), ("h2load", lambda scene: check_load(scene, count)),
        ("dnsdist", check_dnsdist), ("Chromium", check_chromium), ("mutual TLS", check_mutual_tls),
        ("designated resolvers", check_designated), ("designated resolvers by DHCP", check_dnr),
    ]:
        try:
            check(scene)
            print(f"ok: {label}", flush=True)
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            failed += 1
            print(f"FAILED: {label}: {failure}", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    programs = ["dig", "kdig", "curl", "h2load", "dnsdist", "chromium", "dnsmasq", "busybox", "unbound"]
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}: run scripts/install_test_deps.sh")
    # The stack stops the processes also at a signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        make_certificates(work)
        scene = Scene(stack, arguments.binary, work)
        failed = run_checks(scene, arguments.count)
        with open(f"{work}/dotproxy.log") as log:
            if "panicked" in log.read():
                failed += 1
                print("FAILED: dotproxy has panicked")
        if failed:
            with open(f"{work}/dotproxy.log") as log:
                print(*log.read().splitlines()[-10:], sep="\n  ")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
