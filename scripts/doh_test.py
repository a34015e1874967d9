#!/usr/bin/env python3
"""Checks dotproxy with upstreams over HTTPS (RFC 8484): unbound, dnsdist, knot-resolver, unbound behind
nghttpx, and a backend over HTTP/1.1 behind nginx, which ends connections in a second configuration.

Each server listens on 127.0.0.1 and has the same address for every name. Once it has answered kdig,
dotproxy forwards --count queries to it without a cache. The client keeps 50 queries outstanding and sends
none twice. The table shows the lost queries, the errors, and the processor time of dotproxy per query,
also relative to the same load over TLS: to the same server if it has DNS over TLS, otherwise to unbound.

Further checks have upstreams that cannot work: a path that does not exist, servers of DNS over TLS, and a
web server without HTTP/2. Queries must fail with SERVFAIL, and the log must give the reason.

  scripts/doh_test.py [--binary PATH] [--count 2000] [--servers NAME,...] [--check-cpu] [--servers-only]

Exits with 1 if a query was lost or had a wrong response, or if a reason was not in the log. With
--check-cpu, it does so also if a query to unbound over HTTPS takes more than 1.4 times the processor time
of a query over TLS, in a measurement that alternates between both. --servers-only checks the servers with
kdig, without dotproxy.

Needs the packages of scripts/install_test_deps.sh.
"""

import argparse
import asyncio
import contextlib
import glob
import os
import re
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from testbed import (PATIENCE_S, ROOT, apart, exchange, free_port, make_certificates, processor_time, query,
                     start_unbound, stop)

OUTSTANDING = 50
DEADLINE_S = 10
# Queries before the measurement: then the connection is open, and the code is in memory.
WARM_UP = 200
# The processor time is the median of these rounds: other processes disturb a short measurement.
ROUNDS = 5
# For --check-cpu: the number of rounds, each of --count queries, and the accepted ratio.
CPU_ROUNDS, CPU_RATIO_MAX = 9, 1.4
# Lines of each log that are printed if a check fails.
LOG_LINES = 10
# nginx-goaway announces the end of a connection (GOAWAY) after this number of requests.
NGINX_REQUESTS = 100
# The limit on concurrent streams of the second unbound, which is below OUTSTANDING.
FEW_STREAMS = 10
PROGRAMS = ["unbound", "dnsdist", "kresd", "nghttpx", "nginx", "kdig", "openssl"]
PATH = "/dns-query"
# The module for DNS over TLS, from its own package.
NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
NOERROR, SERVFAIL = 0, 2
HEADER = f"{'upstream':<24}{'queries':>8}{'lost':>7}{'errors':>8}{'time':>9}{'CPU/query':>11}{'ratio':>7}"


class Failure(Exception):
    """A check that failed, with the reason."""


# Servers. Each function starts processes in `stack`, which stops them, and returns the port of DNS over
# HTTPS and that of DNS over TLS, or None without one.

def start(stack, work, name, *command):
    """Starts a server, and stops it at the end. Its output goes into a file."""
    with open(f"{work}/{name}.log", "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=work)
    stack.callback(stop, process)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def unbound(stack, work, *more, streams=100):
    """Starts unbound. Returns the ports of DNS over HTTPS, of DNS over TLS, and of plain DNS. `more` are
    lines of its settings."""
    https, tls, plain = free_port(), free_port(), free_port()
    process = start_unbound(work, tls, f"interface: 127.0.0.1@{plain}", f"interface: 127.0.0.1@{https}",
                            f"https-port: {https}", f'http-endpoint: "{PATH}"',
                            f"http-max-streams: {streams}", *more)
    stack.callback(stop, process)
    return https, tls, plain


def start_unbound_https(stack, work):
    return unbound(stack, work)[:2]


def start_unbound_few_streams(stack, work):
    return unbound(stack, work, streams=FEW_STREAMS)[:2]


def start_dnsdist(stack, work):
    https, tls = free_port(), free_port()
    run_dnsdist(stack, work, f"""
addDOHLocal("127.0.0.1:{https}", "server.pem", "server.key", "{PATH}")
addTLSLocal("127.0.0.1:{tls}", "server.pem", "server.key", {{ provider="openssl" }})
""")
    return https, tls


def run_dnsdist(stack, work, listeners):
    """Starts dnsdist with listeners, in front of unbound. The address of plain DNS is not used; without
    one, dnsdist takes port 53."""
    plain = unbound(stack, work)[2]
    conf = write(f"{work}/dnsdist.lua", f"""
setLocal("127.0.0.1:{free_port()}")
setSecurityPollSuffix("")
{listeners}
newServer({{address="127.0.0.1:{plain}", healthCheckMode="up"}})
""")
    start(stack, work, "dnsdist", "dnsdist", "--supervised", "--disable-syslog", "-C", conf)


def start_knot_resolver(stack, work):
    """Starts knot-resolver, which has a fixed path. It refuses a stream (REFUSED_STREAM) unless the body
    follows the header before another stream begins."""
    https, tls, plain = free_port(), free_port(), unbound(stack, work)[2]
    os.mkdir(f"{work}/kresd")
    conf = write(f"{work}/kresd.conf", f"""
net.listen('127.0.0.1', {https}, {{ kind = 'doh2' }})
net.listen('127.0.0.1', {tls}, {{ kind = 'tls' }})
net.tls('{work}/server.pem', '{work}/server.key')
trust_anchors.remove('.')
modules = {{ 'policy' }}
modules.unload('refuse_nord')
policy.add(policy.all(policy.STUB('127.0.0.1@{plain}')))
""")
    start(stack, work, "kresd", "kresd", "-n", "-c", conf, f"{work}/kresd")
    return https, tls


def start_nghttpx(stack, work):
    """Starts nghttpx, which passes requests over HTTP/2 without TLS to unbound."""
    port, backend = free_port(), unbound(stack, work, "http-notls-downstream: yes")[0]
    start(stack, work, "nghttpx", "nghttpx", "--conf=/dev/null", "--single-process", "--workers=1",
          "--no-ocsp", f"--frontend=127.0.0.1,{port}", f"--backend=127.0.0.1,{backend};/;proto=h2",
          f"{work}/server.key", f"{work}/server.pem")
    return port, None


def start_nginx(stack, work, protocol="http2", requests=1_000_000):
    """Starts nginx, which passes requests over HTTP/1.1 to a backend in this process, and DNS over TLS to
    one over TCP. It sends GOAWAY after this number of requests."""
    port, tls = free_port(), free_port()
    backend, dns_backend = start_backend(stack, HttpBackend), start_backend(stack, DnsBackend)
    temporary = "\n".join(f"  {kind}_temp_path {work}/nginx-{kind};"
                          for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    conf = write(f"{work}/nginx.conf", f"""
load_module {NGINX_STREAM};
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests {requests};
{temporary}
  upstream backend {{
    server 127.0.0.1:{backend};
    keepalive 64;
    keepalive_requests 1000000;
  }}
  server {{
    listen 127.0.0.1:{port} ssl {protocol};
    ssl_certificate {work}/server.pem;
    ssl_certificate_key {work}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    location = {PATH} {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
stream {{
  server {{
    listen 127.0.0.1:{tls} ssl;
    ssl_certificate {work}/server.pem;
    ssl_certificate_key {work}/server.key;
    proxy_pass 127.0.0.1:{dns_backend};
  }}
}}
""")
    start(stack, work, "nginx", "nginx", "-c", conf, "-p", work, "-e", "stderr")
    return port, tls


def start_nginx_goaway(stack, work):
    """Starts nginx that often ends a connection, and ignores the requests that cross its GOAWAY."""
    return start_nginx(stack, work, requests=NGINX_REQUESTS)[0], None


SERVERS = {
    "unbound": start_unbound_https,
    "unbound-10-streams": start_unbound_few_streams,
    "dnsdist": start_dnsdist,
    "knot-resolver": start_knot_resolver,
    "nghttpx": start_nghttpx,
    "nginx": start_nginx,
    "nginx-goaway": start_nginx_goaway,
}


class Backend(asyncio.Protocol):
    """A connection of a server."""

    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    def data_received(self, data):
        self.data += data
        self.answer()


class DnsBackend(Backend):
    """A connection of a server of DNS over TCP."""

    def answer(self):
        while len(self.data) > 2:
            end = 2 + int.from_bytes(self.data[:2], "big")
            if len(self.data) < end:
                return
            answer = answer_to(self.data[2:end])
            self.transport.write(len(answer).to_bytes(2, "big") + answer)
            self.data = self.data[end:]


class HttpBackend(Backend):
    """A connection of a web server that answers DNS messages in POST requests over HTTP/1.1."""

    def answer(self):
        while True:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)^content-length: *(\d+)", head, re.M)
            size = int(length[1]) if length else 0
            if not end or len(rest) < size:
                return
            self.transport.write(http_response(head, rest[:size]))
            self.data = rest[size:]


def http_response(head, body):
    is_query = re.search(rb"(?i)^content-type: *application/dns-message\r?$", head, re.M) and len(body) > 12
    if not head.startswith(b"POST ") or not is_query:
        return b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
    answer = answer_to(body)
    return (b"HTTP/1.1 200 OK\r\ncontent-type: application/dns-message\r\ncache-control: max-age=300\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(answer), answer))


def answer_to(message):
    """Returns a response with one address, and without EDNS."""
    end = message.index(0, 12) + 5
    record = b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\1"
    return message[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + message[12:end] + record


def start_backend(stack, backend):
    """Serves these connections from a thread. Returns the port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(backend, "127.0.0.1", 0, backlog=256))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def end():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
    stack.callback(end)
    return server.sockets[0].getsockname()[1]


def await_kdig(work, port, transport):
    """Waits until kdig has an answer from a server; `transport` is its option."""
    command = ["kdig", "@127.0.0.1", "-p", str(port), transport, f"+tls-ca={work}/ca.pem",
               "+tls-hostname=dot.example", "+timeout=2", "+retry=0", "ready.example", "A"]
    end = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if "status: NOERROR" in done.stdout and "ANSWER: 1;" in done.stdout:
            return
        if time.monotonic() > end:
            raise Failure(f"the server does not answer kdig {transport}:\n{done.stdout}")
        time.sleep(0.1)


def await_doh(work, port):
    """Waits until kdig has an answer over HTTPS."""
    await_kdig(work, port, f"+https={PATH}")


def await_dot(work, port):
    """Waits until kdig has an answer over TLS."""
    await_kdig(work, port, "+tls")


# dotproxy and its client.

class Dotproxy:
    """dotproxy with one upstream and without a cache."""

    def __init__(self, stack, binary, work, upstream):
        self.port = free_port()
        self.log = f"{work}/dotproxy-{self.port}.log"
        command = [binary, "-l", "127.0.0.1", "-p", str(self.port), "-v", "--cache-size", "0",
                   "--ca-file", f"{work}/ca.pem", "-u", upstream]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(stop, self.process)
        self.await_in_log("listening on")

    def log_text(self):
        with open(self.log) as file:
            return file.read()

    def await_rcode(self, expected):
        """Waits until a response has this code: the first queries may fail."""
        end, number, last = time.monotonic() + PATIENCE_S, 0, None
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"dotproxy has ended with {self.process.returncode}")
            number += 1
            asked = query(number, f"wait{number}.example")
            response, _ = exchange(self.port, asked, DEADLINE_S)
            if response:
                last = response[3] & 15
            if response and response[:2] == asked[:2] and last == expected:
                return
            time.sleep(0.1)
        raise Failure(f"no response has the code {expected}, the last one has {last}")

    def await_in_log(self, text):
        """Waits until a line of the log has a text. Returns the line."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for line in self.log_text().splitlines():
                if text in line:
                    return line
            time.sleep(0.1)
        raise Failure(f"no line of the log has {text!r}")

    def quit(self):
        """Ends dotproxy, which must succeed."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_S)
        if status != 0 or "panicked" in self.log_text():
            raise Failure(f"dotproxy has ended with {status}")


class Load:
    """A client over UDP with a fixed number of outstanding queries. It sends no query twice."""

    def __init__(self, port):
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.connect(("127.0.0.1", port))
        self.udp.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.udp, selectors.EVENT_READ)
        # In the order of their deadlines.
        self.sent_by_id = {}
        self.sent = self.answered = self.lost = self.errors = 0
        self.problems = []

    def run(self, count, tag):
        """Sends queries for names with this tag, and waits for each until its deadline."""
        number = 0
        while number < count or self.sent_by_id:
            while number < count and len(self.sent_by_id) < OUTSTANDING:
                self.send(number, f"q{number}.{tag}.example")
                number += 1
            self.selector.select(self.wait_s())
            with contextlib.suppress(BlockingIOError):
                while self.sent_by_id:
                    self.on_response(self.udp.recv(4096))
            self.expire()

    def send(self, number, name):
        asked = query(number & 0xffff, name)
        self.sent_by_id[asked[:2]] = asked, time.monotonic() + DEADLINE_S
        self.udp.send(asked)
        self.sent += 1

    def wait_s(self):
        _, deadline = next(iter(self.sent_by_id.values()))
        return max(0, deadline - time.monotonic())

    def on_response(self, response):
        asked, _ = self.sent_by_id.pop(response[:2], (None, None))
        rcode = response[3] & 15
        if asked is None:
            self.add_problem(f"an unexpected response, id {response[:2].hex()}")
        elif response[12:len(asked)] != asked[12:] or response[2] & 0x80 == 0:
            self.add_problem(f"a response to another question: {response.hex()}")
        elif rcode != NOERROR:
            self.add_problem(f"a response with code {rcode}")
        elif response[6:8] == b"\0\0":
            self.add_problem("a response without a record")
        else:
            self.answered += 1

    def add_problem(self, problem):
        self.errors += 1
        self.problems.append(problem)

    def expire(self):
        """Counts the queries without a response as lost."""
        now = time.monotonic()
        while self.sent_by_id:
            key, (_, deadline) = next(iter(self.sent_by_id.items()))
            if deadline > now:
                return
            del self.sent_by_id[key]
            self.lost += 1

    def check(self):
        """Raises Failure unless every query was answered."""
        if self.answered != self.sent or self.errors:
            problems = ", ".join(sorted(set(self.problems))[:3]) or "no errors"
            raise Failure(f"{self.answered} of {self.sent} queries answered, {self.lost} lost; {problems}")

    def close(self):
        self.selector.close()
        self.udp.close()


def measure(stack, arguments, work, label, upstream):
    """Sends the load through dotproxy to one upstream, and prints a line without its end. Returns the
    processor time per query in seconds."""
    dotproxy = Dotproxy(stack, arguments.binary, work, upstream)
    dotproxy.await_rcode(NOERROR)
    tag = re.sub("[^a-z]", "", label.lower())
    pid, start_s = dotproxy.process.pid, time.monotonic()
    with apart(pid), contextlib.closing(Load(dotproxy.port)) as load:
        load.run(WARM_UP, f"{tag}-warm")
        used_s = statistics.median(processor_time_of(pid, load, arguments.count // ROUNDS, f"{tag}-{nth}")
                                   for nth in range(ROUNDS))
    took_s = time.monotonic() - start_s
    print(f"{label:<24}{load.sent:>8}{load.lost:>7}{load.errors:>8}{took_s:>7.1f} s{used_s * 1e6:>8.1f} us",
          end="", flush=True)
    load.check()
    dotproxy.quit()
    return used_s


def processor_time_of(pid, load, count, tag):
    """Returns the processor time per query of a load, in seconds."""
    before = processor_time(pid)
    load.run(count, tag)
    return (processor_time(pid) - before) / count


# The checks. A check that fails raises Failure.

def https_upstream(port, path=PATH):
    return f"https://127.0.0.1:{port}{path}#dot.example"


def baseline(stack, arguments, work):
    """Measures DNS over TLS. Returns the processor time per query."""
    port = unbound(stack, work)[1]
    await_dot(work, port)
    used_s = measure(stack, arguments, work, "unbound, over TLS", f"127.0.0.1:{port}#dot.example")
    print(f"{1:>7.2f}")
    return used_s


def check_server(stack, arguments, work, name, tls_s):
    port, tls_port = SERVERS[name](stack, work)
    await_doh(work, port)
    if arguments.servers_only:
        return print(f"{name}: answers over HTTPS")
    # The default of the path is tested with unbound.
    upstream = https_upstream(port, "" if name == "unbound" else PATH)
    used_s = measure(stack, arguments, work, name, upstream)
    if tls_port:
        print()
        await_dot(work, tls_port)
        tls_s = measure(stack, arguments, work, f"{name}, TLS", f"127.0.0.1:{tls_port}#dot.example")
    print(f"{used_s / tls_s:>7.2f}")


def check_cpu(stack, arguments, work):
    """Compares the processor times with unbound as both upstreams. The rounds alternate, so that other
    processes disturb both measurements."""
    https, tls, _ = unbound(stack, work)
    await_doh(work, https)
    await_dot(work, tls)
    measured = []
    for tag, upstream in [("https", https_upstream(https)), ("tls", f"127.0.0.1:{tls}#dot.example")]:
        dotproxy = Dotproxy(stack, arguments.binary, work, upstream)
        dotproxy.await_rcode(NOERROR)
        load = stack.enter_context(contextlib.closing(Load(dotproxy.port)))
        load.run(WARM_UP, f"{tag}-warm")
        measured.append((tag, dotproxy.process.pid, load, []))
    for nth in range(CPU_ROUNDS):
        for tag, pid, load, times in measured:
            with apart(pid):
                times.append(processor_time_of(pid, load, arguments.count, f"{tag}-{nth}"))
    for _, _, load, _ in measured:
        load.check()
    https_s, tls_s = (statistics.median(times) for *_, times in measured)
    ratio = https_s / tls_s
    print(f"processor time per query: {https_s * 1e6:.1f} us over HTTPS, {tls_s * 1e6:.1f} us over TLS, "
          f"ratio {ratio:.2f}")
    if ratio > CPU_RATIO_MAX:
        raise Failure(f"the ratio {ratio:.2f} is above {CPU_RATIO_MAX}")


def check_refusal(stack, arguments, work, label, upstream, reason):
    """Checks that queries fail, and that the log has the reason."""
    dotproxy = Dotproxy(stack, arguments.binary, work, upstream)
    dotproxy.await_rcode(SERVFAIL)
    line = dotproxy.await_in_log(reason)
    print(f"{label}: SERVFAIL; log: {line}", flush=True)
    dotproxy.quit()


def check_wrong_path(stack, arguments, work):
    port = unbound(stack, work)[0]
    await_doh(work, port)
    check_refusal(stack, arguments, work, "path that does not exist", https_upstream(port, "/other"),
                  "HTTP status 404")


def check_no_alpn(stack, arguments, work):
    """dnsdist completes the handshake and selects no protocol (ALPN) on its port of DNS over TLS."""
    _, port = start_dnsdist(stack, work)
    await_dot(work, port)
    check_refusal(stack, arguments, work, "DNS over TLS, without ALPN", https_upstream(port), "HTTP/2")


def check_alpn_alert(stack, arguments, work):
    """nginx without HTTP/2 aborts the handshake with the alert no_application_protocol."""
    port, _ = start_nginx(stack, work, protocol="")
    await_listener(port)
    check_refusal(stack, arguments, work, "only HTTP/1.1", https_upstream(port), "HTTP/2")


def await_listener(port):
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > end:
                raise Failure(f"no server listens on port {port}") from None
            time.sleep(0.05)


REFUSALS = [check_wrong_path, check_no_alpn, check_alpn_alert]


class Checks:
    """Runs checks, each in a folder and with processes of its own, and counts the failures."""

    def __init__(self, arguments, work):
        self.arguments, self.work, self.failed = arguments, work, 0

    def run(self, label, check, *more):
        """Returns the value of a check, or None if it failed."""
        with tempfile.TemporaryDirectory(dir=self.work) as work, contextlib.ExitStack() as stack:
            for name in ["ca.pem", "server.pem", "server.key"]:
                os.link(f"{self.work}/{name}", f"{work}/{name}")
            try:
                return check(stack, self.arguments, work, *more)
            except (Failure, OSError, subprocess.TimeoutExpired) as failure:
                self.failed += 1
                print(f"\nFAILED: {label}: {failure}")
                print_logs(work)


def print_logs(work):
    """Prints the last lines of the logs of dotproxy and of the servers."""
    for path in sorted(glob.glob(f"{work}/*.log")):
        with open(path, errors="replace") as file:
            lines = file.read().splitlines()[-LOG_LINES:]
        if lines:
            print(f"{os.path.basename(path)}:", *lines, sep="\n  ", flush=True)


def run_checks(arguments, checks):
    tls_s = None
    if not arguments.servers_only:
        print(HEADER)
        tls_s = checks.run("baseline", baseline)
        if tls_s is None:
            return
    for name in arguments.servers:
        checks.run(name, check_server, name, tls_s)
    if not arguments.servers_only:
        for check in [*REFUSALS, *[check_cpu] * arguments.check_cpu]:
            checks.run(check.__name__, check)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--check-cpu", action="store_true")
    parser.add_argument("--servers-only", action="store_true")
    arguments = parser.parse_args()
    arguments.servers = arguments.servers.split(",")
    unknown = set(arguments.servers) - set(SERVERS)
    if unknown:
        sys.exit(f"unknown servers: {', '.join(sorted(unknown))}; known are {', '.join(SERVERS)}")
    if arguments.count < ROUNDS:
        sys.exit(f"--count must be at least {ROUNDS}")
    os.environ["PATH"] += ":/usr/sbin"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}: run scripts/install_test_deps.sh")
    # The stacks stop the servers also at a signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        checks = Checks(arguments, work)
        run_checks(arguments, checks)
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
