#!/usr/bin/env python3
"""Sends queries with forged sources, each a different one, and measures an honest client meanwhile.

  scripts/flood.py SERVER COUNT PID

PID is a process in the network namespace of the server. A batch is sent after the server has read
the previous one, so the kernel drops no query of the honest client, however busy the machine is.

Prints the rate of forged queries and the results of the honest client; exits with 1 if the client
lost a query, or, with PROMISES in the environment, if half of its answers took more than two
milliseconds. Needs a raw socket; scripts/flood_test.sh runs it in a network namespace.
"""

import os
import random
import socket
import statistics
import struct
import sys
import time

from testbed import query

# This batch fits the kernel's socket buffer. The honest client sends one query per this number of
# batches, which is below the rate limit.
BATCH, PER_SECOND, BATCHES_A_QUERY = 200, 60_000, 5
MEDIAN_MAX_S = 0.002


def waiting(pid):
    """Returns the bytes that wait in UDP sockets on port 53 in the network namespace of a
    process."""
    with open(f"/proc/{pid}/net/udp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(":0035"))


def main():
    server, count, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    honest = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    honest.settimeout(30)
    honest.connect((server, 53))
    message = query(1, "www.example.net")
    udp = struct.pack("!HHHH", 5353, 53, 8 + len(message), 0) + message
    # The kernel fills in the checksum; UDP allows zero for none.
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    target = socket.inet_aton(server)
    # Every number once, in random order.
    sources = random.Random(1).sample(range(0x0A010000, 0x0A010000 + count), count)
    waits, lost = [], 0
    start = due = time.monotonic()
    for first in range(0, count, BATCH):
        time.sleep(max(0.0, due - time.monotonic()))
        while waiting(pid) > 0:
            time.sleep(0.0002)
        # A delay does not increase the rate afterwards: the honest client would exceed its limit.
        due = max(due, time.monotonic()) + BATCH / PER_SECOND
        for source in sources[first:first + BATCH]:
            raw.sendto(head + struct.pack("!I", source) + target + udp, (server, 0))
        if first // BATCH % BATCHES_A_QUERY:
            continue
        asked = time.monotonic()
        honest.send(query(first // BATCH % 65536, "www.example.net"))
        try:
            honest.recv(2048)
            waits.append(time.monotonic() - asked)
        except TimeoutError:
            lost += 1
    seconds = time.monotonic() - start
    median = statistics.median(waits)
    print(f"{count} sources forged, {count / seconds:.0f} a second; an honest client asked "
          f"{len(waits) + lost} times, lost {lost}, median {median * 1e3:.2f} ms")
    is_slow = "PROMISES" in os.environ and median > MEDIAN_MAX_S
    sys.exit(1 if lost or is_slow else 0)


if __name__ == "__main__":
    main()
