#!/usr/bin/env python3
"""Checks the targets for memory and size, which do not depend on the load of the machine.

For each release build, dynamic and static if it exists: the size of the static binary, the resident
memory of an idle process, the growth after a load of 100,000 forwarded queries, and the memory of a
full cache of 1 MiB. The memory of a load is released within seconds, and the script waits for that.

  scripts/footprint.py
"""

import os
import statistics
import sys
import tempfile
import time
from types import SimpleNamespace

from bench import (GROWTH_KIB_MAX, IDLE_KIB_MAX, IDLE_STARTS, LOADS, QUERIES, STATIC_BYTES_MAX, load, programs)
from cache_bench import MEMORY_MAX_KIB, measure_memory, write_names
from testbed import (ROOT, await_at_most, free_port, make_certificates, resident_kib, start_unbound, stop)


def measure_idle(program, work, upstream):
    """Returns the resident memory of an idle process in KiB: the median of several starts, since
    it depends on where the kernel maps the code."""
    found = []
    for _ in range(IDLE_STARTS):
        process, _ = program.start(work, upstream, "forwarded")
        # The memory of the start is released after a second.
        time.sleep(1.5)
        found.append(await_at_most(IDLE_KIB_MAX[program.kind], lambda: resident_kib(process.pid)))
        stop(process)
    return statistics.median(found)


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
    idle = measure_idle(program, work, upstream)
    before, after = measure_growth(program, work, upstream, names)
    print(f"{program.label}: {program.size} bytes, {idle:.0f} KiB when idle, {before} KiB before a load, "
          f"{after} KiB after it", flush=True)
    if idle > IDLE_KIB_MAX[program.kind]:
        yield f"{program.label}: {idle} KiB when idle, not {IDLE_KIB_MAX[program.kind]}"
    if after - before > GROWTH_KIB_MAX:
        yield f"{program.label}: {after - before} KiB more after the load, not {GROWTH_KIB_MAX}"
    if program.kind == "static" and program.size > STATIC_BYTES_MAX:
        yield f"{program.label}: {program.size} bytes, not {STATIC_BYTES_MAX}"


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
