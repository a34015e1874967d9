#!/usr/bin/env python3
"""Checks the commands in the documents without running them.

Each command of dotproxy in the documents, and each options file, is checked with --check-conf, with
substitutes for files that do not exist. Each option in the documents must exist, and so must each
file of the repository.

  scripts/check_recipes.py [DOTPROXY]
"""

import glob
import os
import re
import shlex
import subprocess
import sys
import tempfile

from testbed import ROOT, make_certificates, run

PROGRAM = sys.argv[1] if len(sys.argv) > 1 else "target/release/dotproxy"
DOCUMENTS = ["README.md", "SECURITY.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT)),
             *sorted(glob.glob("deploy/**/*.md", root_dir=ROOT, recursive=True))]
# The beginnings of commands that run the program; the rest are its options.
STARTS = [r"(?:\./)?dotproxy(?=( |$))", r"target/release/dotproxy(?=( |$))", r"cargo run --release --(?= )",
          r"docker run (?:--?\S+ (?:\S+:\S+ )?)*dotproxy(?=( |$))"]
# Substitutes for files that options name.
KEYS, AUTHORITIES = ("tls-key", "client-key"), ("ca-file", "tls-client-ca")
CERTIFICATES = ("tls-cert", "client-cert")
# Options of other programs that have similar names, and options that stand for several.
OTHERS = {"release", "target", "features", "no-default-features", "all-targets", "open", "namespace", "set",
          "create-namespace", "rm", "check", "peers", "rounds", "workloads", "json", "svg", "system", "now",
          "by-function", "closed-loop", "record", "all", "bench", "seconds", "binary", "minutes"}


def commands(text):
    """Returns the commands in fenced blocks and in the text, with continued lines joined."""
    blocks = re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", text, re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    without_blocks = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_blocks)]
    for line in lines + spans:
        for start in STARTS:
            match = re.match(start, line)
            options = match and line[match.end():].strip()
            if options and options.startswith("-") and "..." not in options and " FILE" not in options:
                yield line, shlex.split(re.sub(r"\s#.*", "", options))


def substitute(argument, name, work):
    """Returns the argument with an existing file in place of the one that the argument names."""
    def stand_in(match):
        kind = match[1] or name
        file = "server.key" if kind in KEYS else "ca.pem" if kind in AUTHORITIES else "server.pem"
        return (f"{match[1]}=" if match[1] else "") + f"{work}/{file}"

    if name in KEYS + AUTHORITIES + CERTIFICATES:
        return stand_in(re.match("()", argument))
    return re.sub(r"\b(client-cert|client-key)=[^,]+", stand_in, argument)


def problem_with(options, work):
    """Returns the errors of the program for these options."""
    name, prepared = None, []
    for option in options:
        prepared.append(substitute(option, name, work) if not option.startswith("-") else option)
        name = option.lstrip("-") if option.startswith("-") else None
    if not {"-u", "--upstream", "--help", "--version", "--probe", "-C", "--conf-file"} & set(options):
        prepared += ["-u", "192.0.2.1"]
    if {"--help", "--version", "--probe"} & set(options):
        return None
    done = subprocess.run([PROGRAM, *prepared, "--check-conf"], capture_output=True, text=True, cwd=ROOT)
    return done.stderr.strip() if done.returncode else None


def main():
    os.chdir(ROOT)
    known = set(re.findall(r"--([a-z][a-z-]+)", run(PROGRAM, "--help")))
    found, problems = 0, []
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        for document in DOCUMENTS:
            with open(document) as file:
                text = file.read()
            for line, options in commands(text):
                found += 1
                problem = problem_with(options, work)
                if problem:
                    problems.append(f"{document}: {line}\n    {problem}")
            for number, options in enumerate(re.findall(r"^```\n(# /etc/dotproxy.*?)^```", text, re.M | re.S)):
                found += 1
                path = f"{work}/{os.path.basename(document)}-{number}.conf"
                with open(path, "w") as file:
                    file.write(options)
                problem = problem_with(["-C", path], work)
                if problem:
                    problems.append(f"{document}: {options.splitlines()[0]}\n    {problem}")
            for option in sorted(set(re.findall(r"(?<![\w-])--([a-z][a-z-]+[a-z])", text)) - known - OTHERS):
                problems.append(f"{document}: --{option} is no option")
            folder = os.path.dirname(document)
            for path in set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)):
                if not os.path.exists(os.path.join(folder, path)):
                    problems.append(f"{document}: there is no {path}")
            for path in set(re.findall(r"(?<![\w/])(?:deploy|docs|scripts|tests|src|man)/[\w./@*-]*\w", text)):
                if not glob.glob(path) and not glob.glob(path + "*"):
                    problems.append(f"{document}: there is no {path}")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{found} commands and files of options in {len(DOCUMENTS)} documents are right")


if __name__ == "__main__":
    main()
