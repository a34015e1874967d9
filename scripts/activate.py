#!/usr/bin/env python3
"""Starts a program with inherited sockets, as systemd does (sd_listen_fds(3)).

  scripts/activate.py ADDRESS:PORT COMMAND...

Opens the sockets, for UDP and TCP, and starts the command with them. When the command ends, it is
started again, until SIGTERM ends both.
"""

import os
import signal
import socket
import sys


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    sockets = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        one = socket.socket(socket.AF_INET, kind)
        one.bind((host, int(port)))
        sockets.append(one)
    sockets[1].listen(128)
    child = None

    def finish(*_):
        if child:
            os.kill(child, signal.SIGTERM)
        sys.exit(0)

    signal.signal(signal.SIGTERM, finish)
    while True:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # The sockets may already have these numbers, so they are moved away first.
            copies = [os.dup(one.fileno()) for one in sockets]
            copies = [os.dup2(copy, 100 + place) for place, copy in enumerate(copies)]
            for place, copy in enumerate(copies):
                os.dup2(copy, 3 + place, inheritable=True)
                os.set_inheritable(copy, False)
            environment = {**os.environ, "LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
            os.execve(sys.argv[2], sys.argv[2:], environment)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
