#!/usr/bin/env python3
"""Checks the commands and references in the documents without running the commands.

- Each command of dotproxy and each options file passes --check-conf, with substitutes for files that
  do not exist.
- Each option in the documents exists, and docs/options.md describes each option of --help.
- docs/monitoring.md describes each metric of src/reactor/export/metrics.rs, and no other metric is in
  the documents. It also describes each event of the log.
- Each file of the repository that a document names or links to exists.

  scripts/check_recipes.py [DOTPROXY]
"""

import glob
import os
import re
import shlex
import subprocess
import sys
import tempfile

from manual import options_of_document
from testbed import ROOT, make_certificates, run

PROGRAM = sys.argv[1] if len(sys.argv) > 1 else "target/release/dotproxy"
DOCUMENTS = ["README.md", "SECURITY.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT)),
             *sorted(glob.glob("deploy/**/*.md", root_dir=ROOT, recursive=True))]
# The beginnings of commands that run the program; the rest are its options.
STARTS = [r"(?:\./)?dotproxy(?=( |$))", r"target/release/dotproxy(?=( |$))", r"cargo run --release --(?= )",
          r"docker run (?:--?\S+ (?:\S+:\S+ )?)*dotproxy(?=( |$))"]
# Documents that are written on another branch. Remove an entry when its file exists.
PENDING = {"docs/kubernetes.md"}
# Pages of the hosting site, relative to the repository.
SITE_PAGES = "../../actions/"
# A metric that the adapter of deploy/kubernetes/scaling makes from others.
DERIVED_METRICS = {"dotproxy_queries_per_second"}
# The installed options file, one in the working folder, and their substitute.
OPTIONS_FILES, SAMPLE_FILE = ("/etc/dotproxy/dotproxy.conf", "dotproxy.conf"), "deploy/debian/dotproxy.conf"
# Substitutes for files that options name.
SUBSTITUTES = {"tls-key": "server.key", "client-key": "server.key", "ca-file": "ca.pem", "tls-client-ca": "ca.pem",
               "tls-cert": "server.pem", "client-cert": "server.pem", "hosts": "hosts", "block": "names"}
# Options of other programs that have similar names, and options that stand for several.
OTHERS = {"release", "target", "features", "no-default-features", "all-targets", "open", "namespace", "set",
          "create-namespace", "rm", "check", "peers", "rounds", "workloads", "json", "svg", "system", "now",
          "by-function", "closed-loop", "paced", "path", "record", "reuse-values", "show-only", "all", "bench", "seconds", "binary", "minutes",
          "doh-url", "cacert"}


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
            if options and options.startswith("-") and "..." not in options and not re.search(" (FILE|TEST)", options):
                yield line, shlex.split(re.sub(r"\s#.*", "", options))


def substitute(argument, name, work):
    """Returns the argument with an existing file in place of the one that the argument names."""
    def existing(match):
        kind = match[1] or name
        file = SUBSTITUTES.get(kind, "server.pem")
        return (f"{match[1]}=" if match[1] else "") + f"{work}/{file}"

    if name in SUBSTITUTES:
        return existing(re.match("()", argument))
    return re.sub(r"\b(client-cert|client-key)=[^,]+", existing, argument)


def substitute_in_file(options, work):
    """Returns the lines of an options file with existing files in place of those that they name."""
    options = options.replace("/var/lib/dotproxy/", f"{work}/")
    return re.sub(r"^([a-z-]+)( *= *)(.*)$", lambda line: line[1] + line[2] + substitute(line[3], line[1], work), options,
                  flags=re.M)


def problem_with(options, work):
    """Returns the errors of the program for these options."""
    name, prepared = None, []
    # The documents name upstreams that are out of reach.
    for option in filter("--check-upstreams".__ne__, options):
        option = SAMPLE_FILE if option in OPTIONS_FILES else option
        prepared.append(substitute(option, name, work) if not option.startswith("-") else option)
        name = option.lstrip("-") if option.startswith("-") else None
    if not {"-u", "--upstream", "--help", "--version", "--probe", "-C", "--conf-file"} & set(options):
        prepared += ["-u", "192.0.2.1"]
    if {"--help", "--version", "--probe"} & set(options):
        return None
    done = subprocess.run([PROGRAM, *prepared, "--check-conf"], capture_output=True, text=True, cwd=ROOT)
    return done.stderr.strip() if done.returncode else None


def problems_with_options(text, known):
    """Returns the differences between docs/options.md and --help."""
    described = options_of_document(text)
    for option in sorted(known - described):
        yield f"docs/options.md: --{option} has no row in the tables of options"
    for option in sorted(described - known):
        yield f"docs/options.md: --{option} is not in --help"


def metrics_of_source():
    """Returns the names of the metrics, with the suffix that a counter has on the page."""
    with open("src/reactor/export/metrics.rs") as file:
        source = file.read()
    names = re.findall(r'"((?:dotproxy|process)_[a-z_]+)"', source)
    # The name of a counter is an argument of `counter`, possibly by a table and a loop.
    counters = set(re.findall(r'\.counter\(\s*"([a-z_]+)"', source))
    for table in re.findall(r"for \(name, help, \w+\) in \[(.*?)\n        \] \{(.*?)\n        \}", source, re.S):
        if "page.counter(name" in table[1]:
            counters.update(re.findall(r'"(dotproxy_[a-z_]+)"', table[0]))
    return {f"{name}_total" if name in counters else name for name in names}


def problems_with_metrics(metrics):
    """Returns the metrics without a row in docs/monitoring.md."""
    row = r"^\| `([a-z_]+)(?:\{[a-z,]+\})?` \| (?:counter|gauge|histogram) \|"
    with open("docs/monitoring.md") as file:
        described = set(re.findall(row, file.read(), re.M))
    for metric in sorted(metrics - described):
        yield f"docs/monitoring.md: {metric} has no row in the tables of metrics"
    for metric in sorted(described - metrics):
        yield f"docs/monitoring.md: {metric} is not in src/reactor/export/metrics.rs"


def problems_with_events():
    """Returns the events of the log without a row in docs/monitoring.md, and rows without an event."""
    source = ""
    for path in glob.glob("src/**/*.rs", recursive=True):
        with open(path) as file:
            source += file.read()
    events = set(re.findall(r'\bevent = "([a-z-]+)"', source))
    with open("docs/monitoring.md") as file:
        rows = re.findall(r"^\| ([^|]*) \| (?:error|warn|info|debug|trace)[a-z, ]* \|", file.read(), re.M)
    described = {event for row in rows for event in re.findall(r"`([a-z-]+)`", row)}
    for event in sorted(events - described):
        yield f"docs/monitoring.md: {event} has no row in the table of events"
    # A few events are chosen by a variable.
    for event in sorted(event for event in described if f'"{event}"' not in source):
        yield f"docs/monitoring.md: {event} is not an event of the log"


def unknown_metrics(text, metrics):
    """Returns the names in a document that look like metrics and are none."""
    for name in sorted(set(re.findall(r"(?<![:\w])dotproxy_[a-z_]+[a-z]", text))):
        if name not in metrics | DERIVED_METRICS and re.sub(r"_(bucket|sum|count)$", "", name) not in metrics:
            yield name


def problems_with_files(document, text):
    """Returns the files that a document names or links to, and that do not exist."""
    folder = os.path.dirname(document)
    links = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text))
    for path in sorted(link for link in links if not link.startswith(SITE_PAGES)):
        target = os.path.normpath(os.path.join(folder, path))
        if target not in PENDING and not os.path.exists(target):
            yield f"{document}: the link target {path} does not exist"
    for path in sorted(set(re.findall(r"(?<![\w/])(?:deploy|docs|scripts|tests|src|man)/[\w./@*-]*\w", text))):
        if path not in PENDING and not glob.glob(path) and not glob.glob(path + "*"):
            yield f"{document}: the file {path} does not exist"
    for path, anchor in sorted(set(re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text))):
        target = os.path.normpath(os.path.join(folder, path)) if path else document
        if target.endswith(".md") and os.path.exists(target) and anchor not in anchors_of(target):
            yield f"{document}: {target} has no heading for #{anchor}"


def anchors_of(path):
    """Returns the anchors of the headings of a document, as GitHub makes them."""
    with open(path) as file:
        text = re.sub(r"^```.*?^```", "", file.read(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {anchor if anchors[:index].count(anchor) == 0 else f"{anchor}-{anchors[:index].count(anchor)}"
            for index, anchor in enumerate(anchors)}


def main():
    os.chdir(ROOT)
    known = set(re.findall(r"--([a-z][a-z0-9-]+)", run(PROGRAM, "--help")))
    metrics = metrics_of_source()
    found, problems = 0, []
    with open("docs/options.md") as file:
        problems += problems_with_options(file.read(), known)
    problems += problems_with_metrics(metrics)
    problems += problems_with_events()
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        for name in ["hosts", "names"]:
            open(f"{work}/{name}", "w").close()
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
                    file.write(substitute_in_file(options, work))
                problem = problem_with(["-C", path], work)
                if problem:
                    problems.append(f"{document}: {options.splitlines()[0]}\n    {problem}")
            for option in sorted(set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+[a-z0-9])", text)) - known - OTHERS):
                problems.append(f"{document}: dotproxy has no option --{option}")
            problems += [f"{document}: dotproxy has no metric {name}" for name in unknown_metrics(text, metrics)]
            problems += problems_with_files(document, text)
    if problems:
        sys.exit("\n".join(problems))
    print(f"documents are valid: {len(DOCUMENTS)} documents, {found} commands and options files, "
          f"{len(known)} options, {len(metrics)} metrics")


if __name__ == "__main__":
    main()
