#!/usr/bin/env python3
"""Checks the TLS key exchange against OpenSSL 4 (of the package pyOpenSSL), as a server and as a
client.

  scripts/key_exchange_test.py BINARY

A query passes through both connections of the program: an OpenSSL client, dotproxy, an OpenSSL
server. Each side of OpenSSL reports its group.
"""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from testbed import PATIENCE_S, ROOT, free_port, make_certificates, query, stop

sys.path.insert(0, os.path.join(ROOT, "target/python"))
from OpenSSL import SSL  # noqa: E402

# The names of OpenSSL.
HYBRID, CLASSIC = "X25519MLKEM768", "x25519"
ANSWER = b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\1"


def read_message(tls):
    def read(length):
        data = b""
        while len(data) < length:
            data += tls.recv(length - len(data))
        return data
    return read(*struct.unpack("!H", read(2)))


def write_message(tls, message):
    tls.sendall(struct.pack("!H", len(message)) + message)


def answer_to(message):
    """Returns a response with one address, and without EDNS."""
    end = message.index(0, 12) + 5
    return message[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + message[12:end] + ANSWER


class Upstream(threading.Thread):
    """An OpenSSL server that answers one query on each connection and then closes it. Records the
    group of each handshake."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate_file(f"{work}/server.pem")
        self.context.use_privatekey_file(f"{work}/server.key")
        self.context.set_session_id(b"dotproxy")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.groups = []

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            tls = SSL.Connection(self.context, connection)
            tls.set_accept_state()
            try:
                tls.do_handshake()
                self.groups.append(tls.get_group_name())
                message = read_message(tls)
                write_message(tls, answer_to(message))
                tls.shutdown()
            except SSL.Error as error:
                print("upstream:", repr(error), file=sys.stderr)
            connection.close()


def ask(work, port, name):
    """Sends a query from an OpenSSL client. Returns the group and the response."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(f"{work}/ca.pem")
    context.set_verify(SSL.VERIFY_PEER)
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            assert time.monotonic() < end, "the program does not listen"
            time.sleep(0.05)
    tls = SSL.Connection(context, connection)
    tls.set_connect_state()
    tls.do_handshake()
    write_message(tls, query(4242, name))
    response = read_message(tls)
    group = tls.get_group_name()
    tls.shutdown()
    connection.close()
    return group, response


def resumed_handshakes(port):
    """Returns the number of resumed handshakes in the metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    pattern = r'^dotproxy_upstream_handshakes_total\{.*kind="resumed"\} (\d+)$'
    return int(re.search(pattern, text, re.M)[1])


def check(binary, work, groups, expected):
    upstream = Upstream(work)
    upstream.start()
    port, http = free_port(), free_port()
    options = [f"--upstream=127.0.0.1:{upstream.port}", f"--ca-file={work}/ca.pem", "--cache-size=0",
               f"--port={free_port()}", "--listen=127.0.0.1", f"--tls-listen=127.0.0.1:{port}",
               f"--tls-cert={work}/server.pem", f"--tls-key={work}/server.key",
               f"--http-listen=127.0.0.1:{http}", f"--key-exchange={groups}"]
    program = subprocess.Popen([binary, *options])
    try:
        for number in range(5):
            group, response = ask(work, port, f"n{number}.example")
            assert group == expected, f"client: {group}"
            assert response[:2] == query(4242, "a")[:2] and ANSWER in response, response
        # A resumed session has a key exchange too.
        resumed = resumed_handshakes(http)
        assert resumed > 0
    finally:
        stop(program)
    assert len(upstream.groups) >= 5 and set(upstream.groups) == {expected}, upstream.groups
    print(f"--key-exchange {groups}: {len(upstream.groups)} handshakes of the upstream, {resumed} resumed")


def main():
    binary = sys.argv[1]
    print(SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode())
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        check(binary, work, "hybrid", HYBRID)
        check(binary, work, "classic", CLASSIC)


if __name__ == "__main__":
    main()
