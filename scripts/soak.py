#!/usr/bin/env python3
"""Runs three upstreams with random faults for twenty minutes: no query and no resource is lost.

Each upstream changes its behaviour every few seconds: it answers, is slow, answers nothing, stalls
after a few answers, closes its connections, refuses new ones, or answers SERVFAIL. At most two of
three fail at a time. Clients send 300 queries per second. At the end every table must be empty,
resident memory must be within 5 % of its value after the first minute, and hedges must be at most
5 % of the queries. In the first minute each upstream has every fault once, so that the code for
faults is resident. The anonymous memory of the process is also printed.

  scripts/soak.py [--minutes 20] [--seed 1] [--binary PATH] [--policy NAME] [--check]
"""

import argparse
import asyncio
import os
import random
import re
import sys
import tempfile

from chaos import Proxy, Server, clients_of
from testbed import ROOT, make_certificates, resident_kib, stop

MOODS = ["well", "well", "slow", "mute", "stalls", "closes", "refuses", "errs"]
WARM_UP_S = 60
TWICE_MAX = 0.05
GROWTH_MAX = 0.05
KINDS = "VmRSS", "RssAnon"


class Moody(Server):
    """An upstream that changes its behaviour."""

    def __init__(self, work):
        super().__init__(work)
        self.mood, self.connections = "well", set()

    async def be(self, mood):
        if self.mood == "refuses" and mood != "refuses":
            await self.start()
        self.mood = mood
        self.answers = {"mute": 0, "stalls": 50}.get(mood)
        self.delay = 0.25 if mood == "slow" else 0.0
        self.rcode = 2 if mood == "errs" else 0
        if mood == "refuses":
            await self.stop()
        if mood in ("closes", "refuses"):
            for writer in list(self.connections):
                writer.transport.abort()

    async def serve(self, reader, writer):
        self.connections.add(writer)
        try:
            await super().serve(reader, writer)
        finally:
            self.connections.discard(writer)


async def moods(upstreams, chance, warm_up):
    """Changes the behaviour of upstreams, of which one is always healthy: first each kind in
    turn, then at random."""
    for mood in MOODS:
        for one in upstreams:
            await one.be(mood)
            await asyncio.sleep(warm_up / len(MOODS) / len(upstreams))
            await one.be("well")
    while True:
        await asyncio.sleep(chance.uniform(1, 5))
        one = chance.choice(upstreams)
        others = [other for other in upstreams if other is not one]
        is_other_well = any(other.mood in ("well", "closes") for other in others)
        await one.be(chance.choice(MOODS) if is_other_well else "well")


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--policy", default="fastest")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    seconds = arguments.minutes * 60
    warm_up = min(WARM_UP_S, seconds / 4)
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        upstreams = [Moody(work) for _ in range(3)]
        for upstream in upstreams:
            await upstream.start()
        proxy = Proxy(work, arguments, upstreams)
        await asyncio.sleep(0.5)
        changes = asyncio.create_task(moods(upstreams, random.Random(arguments.seed), warm_up))
        try:
            clients = await clients_of(proxy)
            await clients.ask(warm_up)
            before, own_before = (resident_kib(proxy.process.pid, kind) for kind in KINDS)
            await clients.ask(seconds - warm_up)
            await clients.settle()
            changes.cancel()
            # Longer than the idle timeout of a connection.
            await asyncio.sleep(25)
            after, own_after = (resident_kib(proxy.process.pid, kind) for kind in KINDS)
            counted = proxy.counted()
            with open(proxy.log) as log:
                line = [line for line in log if "queries udp=" in line][-1]
        finally:
            changes.cancel()
            stop(proxy.process)
    waited = sorted(clients.waited)
    asked = len(waited) + len(clients.errors) + len(clients.sent)
    twice = (counted["hedges"] + counted["copies"]) / asked
    left = [int(number) for number in re.findall(r"(?:inflight|links|tcp-clients)=(\d+)", line)]
    print(f"queries {asked}, failed {asked - len(waited)}, "
          f"median {waited[len(waited) // 2] * 1e3:.1f} ms, "
          f"p99 {waited[len(waited) * 99 // 100] * 1e3:.1f} ms, slowest {waited[-1] * 1e3:.0f} ms")
    print(f"sent twice before the first had failed {100 * twice:.2f} %, "
          f"left in tables {left}")
    print(f"resident {before} KiB, then {after} KiB; without code {own_before} KiB, then {own_after} KiB")
    print(line.strip())
    is_right = (asked == len(waited) and twice <= TWICE_MAX and not any(left)
                and after <= before * (1 + GROWTH_MAX))
    sys.exit(1 if arguments.check and not is_right else 0)


if __name__ == "__main__":
    asyncio.run(main())
