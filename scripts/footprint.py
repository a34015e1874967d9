#!/usr/bin/env python3
"""Checks the targets for memory and size, which do not depend on the load of the machine.

For each release build, dynamic and static if it exists: the size of the static binary, the memory
while 100 queries a second flow (resident, and anonymous, which is private to the process), the
growth after a load of 100,000 forwarded queries, and the memory of a full cache of 1 MiB. The memory
of a load is released within seconds, and the script waits for that.

  scripts/footprint.py
"""

import os
import sys
import tempfile
import time
from types import SimpleNamespace

from bench import GROWTH_KIB_MAX, LOADS, MEMORY_QPS, QUERIES, load, programs
from cache_bench import MEMORY_MAX_KIB, measure_memory, write_names
from testbed import (ROOT, await_at_most, free_port, make_certificates, resident_kib, start_unbound, stop)


def measure_growth(program, work, upstream, names):
    """Returns the resident memory in KiB before a load, and after each load."""
    process, port = program.start(work, upstream, "forwarded")
    try:
        time.sleep(1.5)
        before = resident_kib(process.pid)
        load(port, names, 1, LOADS["forwarded"][0])
        return before, await_at_most(before + GROWTH_KIB_MAX, lambda: resident_kib(process.pid))
    finally:
        stop(process)


def problems(program, work, upstream, names):
    program.measure_memory(work, upstream)
    resident, anonymous = program.memory()
    before, after = measure_growth(program, work, upstream, names)
    print(f"{program.label}: {program.size} bytes, {resident:.0f} KiB resident at {MEMORY_QPS} queries/s, of which "
          f"{anonymous:.0f} KiB are anonymous; {before} KiB before a load, {after} KiB after it", flush=True)
    yield from program.memory_problems()
    if after - before > GROWTH_KIB_MAX:
        yield f"{program.label}: {after - before} KiB more after the load, not {GROWTH_KIB_MAX}"


def main():
    os.environ["PATH"] += ":/usr/sbin"
    builds = programs(SimpleNamespace(peers="", binary=[]), ["forwarded"])
    found = []
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        names = write_names(f"{work}/cold.names", (f"u{n:07}.miss.example.net" for n in range(QUERIES)))
        port = free_port()
        upstream = start_unbound(work, port)
        try:
            for program in (program for program in builds if program.kind):
                found += problems(program, work, port, names)
            more = measure_memory(work, f"{ROOT}/target/release/dotproxy", port)
        finally:
            stop(upstream)
    if more > MEMORY_MAX_KIB:
        found.append(f"a cache of 1 MiB takes {more} KiB, not {MEMORY_MAX_KIB:.0f}")
    sys.exit("\n".join(found) or None)


if __name__ == "__main__":
    main()
