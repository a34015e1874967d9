#!/usr/bin/env python3
"""Compares the instructions per query on each hot path with the recorded numbers.

Time differs between machines and runs; the number of instructions hardly does. valgrind counts the
instructions of the paths in benches/hot_paths: with few and with more iterations, so that the
set-up cancels out. A path that exceeds its number in benches/instructions.json by more than 5 %
fails. The file names the compiler of the record; with another compiler, 15 % are allowed.

  scripts/instructions.py [--record] [--by-function WAY]

--record writes the current numbers. --by-function prints the cost of each function on one path.
"""

import argparse
import json
import os
import re
import sys
import tempfile

from testbed import ROOT, run

NUMBERS = f"{ROOT}/benches/instructions.json"
FEW, MANY = 100, 600
GROWTH_MAX, GROWTH_MAX_OTHERWISE = 0.05, 0.15
# The minimum share of a function in a profile.
SHOWN_MIN = 0.01


def build(profile="bench"):
    """Builds benches/hot_paths with a profile of Cargo. Returns the path of the program."""
    out = run("cargo", "bench", "--bench", "hot_paths", "--profile", profile, "--no-run", "--locked",
              "--message-format=json", cwd=ROOT)
    artifacts = (json.loads(line) for line in out.splitlines() if line.startswith("{"))
    return next(one["executable"] for one in artifacts
                if one.get("target", {}).get("name") == "hot_paths" and one.get("executable"))


def ways():
    with open(f"{ROOT}/benches/hot_paths/main.rs") as file:
        return re.findall(r'^ *hot_path\(\s*"(\w+)"', file.read(), re.M)


def count(program, way, times):
    """Returns the total number of instructions, and the number of queries per iteration of the
    path."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
               "--log-file=%s"]
    with tempfile.NamedTemporaryFile("r") as log:
        command[-1] %= log.name
        queries = run(*command, program, way, str(times))
        return int(re.search(r"I +refs: +([\d,]+)", log.read())[1].replace(",", "")), int(queries)


def cost(program, way):
    few, _ = count(program, way, FEW)
    many, queries = count(program, way, MANY)
    return round((many - few) / (MANY - FEW) / queries)


def profile(program, way):
    """Returns the instructions of each function, without those of its callees."""
    functions = {}
    for times, sign in (FEW, -1), (MANY, 1):
        with tempfile.NamedTemporaryFile("r") as out:
            run("valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program, way,
                str(times), stderr=None)
            listed = run("callgrind_annotate", "--threshold=100", out.name)
        for number, name in re.findall(r"^ *([\d,]+) \([ \d.]+%\)  \S*?:(\S.*?)(?: \[.*)?$", listed, re.M):
            functions[name] = functions.get(name, 0) + sign * int(number.replace(",", ""))
    _, queries = count(program, way, 0)
    each = {name: number / (MANY - FEW) / queries for name, number in functions.items()}
    whole = sum(each.values())
    for name, number in sorted(each.items(), key=lambda one: -one[1]):
        if number >= SHOWN_MIN * whole:
            print(f"{number:8.0f}  {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--by-function", metavar="WAY")
    arguments = parser.parse_args()
    if arguments.by_function:
        return profile(build("profiling"), arguments.by_function)
    program = build()
    compiler = run("rustc", "--version").strip()
    costs = {way: cost(program, way) for way in ways()}
    if arguments.record:
        with open(NUMBERS, "w") as file:
            json.dump({"compiler": compiler, "instructions": costs}, file, indent=2)
            file.write("\n")
    with open(NUMBERS) as file:
        recorded = json.load(file)
    known = recorded["instructions"]
    most = GROWTH_MAX if recorded["compiler"] == compiler else GROWTH_MAX_OTHERWISE
    print(f"{'instructions per query':24}{'now':>8}{'known':>8}")
    broken = []
    for way, number in costs.items():
        growth = number / known[way] - 1 if way in known else float("inf")
        print(f"{way:24}{number:>8}{known.get(way, '-'):>8}{growth:>+8.1%}")
        if growth > most:
            broken.append(f"{way}: {growth:+.1%}, not {most:+.0%} at most")
    if known.keys() - costs.keys():
        broken.append(f"not measured: {', '.join(sorted(known.keys() - costs.keys()))}")
    if broken:
        sys.exit("\n".join(broken + ["to accept the new numbers: scripts/instructions.py --record"]))


if __name__ == "__main__":
    main()
