"""Shared parts of the measuring scripts: a DNS-over-TLS resolver, queries and processes."""

import contextlib
import glob
import os
import random
import re
import socket
import struct
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICKS = os.sysconf("SC_CLK_TCK")
# The maximum time to wait for an event, in seconds, on a machine that may be busy.
PATIENCE_S = 60


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def make_certificates(work):
    """Creates an authority, and a server certificate for dot.example and 127.0.0.1."""
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *new_key, "-days", "90", "-subj", "/CN=bench authority",
        "-keyout", "ca.key", "-out", "ca.pem", "-addext", "basicConstraints=critical,CA:TRUE",
        "-addext", "keyUsage=critical,keyCertSign", cwd=work)
    run("openssl", "req", *new_key, "-subj", "/CN=dot.example", "-keyout", "server.key",
        "-out", "server.csr", cwd=work)
    with open(f"{work}/extensions", "w") as file:
        file.write("subjectAltName=DNS:dot.example,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    run("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-days", "60", "-extfile", "extensions", "-out", "server.pem", cwd=work)


@contextlib.contextmanager
def apart(pid):
    """Pins a process to one processor, and processes that are started meanwhile to the others.
    Otherwise chance decides whether the load generator shares its processor, where a query costs
    half as much."""
    own = os.sched_getaffinity(0)
    first, *others = sorted(own)
    if others:
        os.sched_setaffinity(pid, {first})
        os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


# Abstract sockets, one for each port that this process uses: no other test gets the port, even
# while its server is down.
reservations = []


def free_port():
    """Returns a port of 127.0.0.1 that is free for UDP and TCP, and reserves it until this process
    ends. The port is below the ephemeral range, so that no client takes it before it is used."""
    while True:
        address = ("127.0.0.1", random.randrange(20_000, 30_000))
        reservation = socket.socket(socket.AF_UNIX)
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                reservation.bind(f"\0dotproxy-test-port-{address[1]}")
                udp.bind(address)
                tcp.bind(address)
            except OSError:
                reservation.close()
                continue
            reservations.append(reservation)
            return address[1]


# The settings of every unbound.
UNBOUND_HEAD = """
remote-control:
  control-enable: no
server:
  num-threads: 1
  directory: "{work}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: "{work}/{name}.log"
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
"""

UNBOUND_CONF = UNBOUND_HEAD + """
  tls-port: {port}
  tls-service-key: "{work}/server.key"
  tls-service-pem: "{work}/server.pem"
  module-config: "iterator"
  incoming-num-tcp: 1000
  tcp-idle-timeout: 60000
  local-zone: "." redirect
  local-data: ". 300 IN A 192.0.2.1"
"""


def start_unbound(work, port, *more):
    """Starts a resolver on 127.0.0.1 that has the same address for every name. `more` are lines
    of its settings."""
    conf = f"{work}/upstream-{port}.conf"
    with open(conf, "w") as file:
        file.write(UNBOUND_CONF.format(work=work, name=f"upstream-{port}", port=port))
        file.writelines(f"{line}\n" for line in more)
    return subprocess.Popen(["unbound", "-d", "-c", conf])


def query(number, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def exchange(port, message, timeout):
    """Sends a query over UDP. Returns the response and the time, or None twice."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(timeout)
        start = time.perf_counter()
        try:
            udp.sendto(message, ("127.0.0.1", port))
            response = udp.recv(4096)
        except OSError:
            return None, None
        return response, time.perf_counter() - start


def ask(port, name, timeout=2.0):
    """Queries an address. Returns the time, or None without an answer."""
    asked = query(4242, name)
    response, took = exchange(port, asked, timeout)
    is_answer = (response and response[:2] == asked[:2] and response[3] & 15 == 0
                 and response[6:8] != b"\0\0")
    return took if is_answer else None


def processor_times(pid):
    """Returns the seconds of processor time so far: in user mode and in the kernel."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def processor_time(pid):
    """Returns the seconds of processor time so far, of all threads, by a finer clock."""
    threads = glob.glob(f"/proc/{pid}/task/*/schedstat")
    return sum(int(open(thread).read().split()[0]) for thread in threads) / 1e9


def resident_kib(pid, kind="VmRSS"):
    """Returns the resident memory in KiB: all (VmRSS), anonymous (RssAnon), or of files
    (RssFile)."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"{kind}:\s+(\d+)", file.read())[1])


def memory_kib(pid):
    """Returns two parts of memory in KiB: resident, which includes code and constants that the page
    cache has anyway, and anonymous, which the process has for itself. Private_Dirty is not used:
    right after a build it includes code that the system has not written to disk yet."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        text = file.read()
    return tuple(int(re.search(rf"^{kind}:\s+(\d+)", text, re.M)[1]) for kind in ("Rss", "Anonymous"))


def await_at_most(most, read):
    """Returns the value of `read` once it is at most `most`, or after a timeout."""
    end = time.monotonic() + PATIENCE_S
    value = read()
    while value > most and time.monotonic() < end:
        time.sleep(0.5)
        value = read()
    return value


def stop(process):
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
