#!/usr/bin/env python3
"""Writes the manual page and the shell completions, from the help of the program and the README.

  scripts/manual.py            writes man/
  scripts/manual.py --check    fails if it would change a file

The list of options is that of `dotproxy --help`, which prints the table of options of the program;
their long descriptions are in the table of the README. Both must have the same options.
"""

import os
import pathlib
import re
import sys

from testbed import ROOT, run

# The date of the latest or next release.
DATE = "2026-11-26"

BINARY = os.environ.get("DOTPROXY", f"{ROOT}/target/release/dotproxy")


def options_of_help(text):
    """Returns the options as (short, long, value, help)."""
    options = []
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    # The help of an option with a long value is in the next line.
    joined = re.sub(r"\n {29,}", "  ", "\n".join(lines))
    for line in joined.splitlines():
        names, _, about = re.sub(r"^ +", "", line).partition("  ")
        if not about:
            names, about = split_names(names)
        names = names.strip()
        value = names.split()[-1] if not names.split()[-1].startswith("-") else ""
        short = ""
        for name in names.split():
            name = name.rstrip(",")
            if re.fullmatch("-[a-zA-Z]", name):
                short = name[1:]
            elif name.startswith("--"):
                options.append((short, name[2:], value, about.strip()))
                short = ""
    return options


def split_names(line):
    """Returns the names with a single space before their help."""
    match = re.match(r"((?:-\w, )?--[a-z-]+(?:, --[a-z-]+)*(?: [A-Z]\S*)?) (.*)", line)
    assert match, line
    return match.groups()


def section(text, title):
    """Returns the lines of a section of the README."""
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, title
    return re.split(r"\n## ", rest)[0].strip("\n").split("\n")


def roff(text):
    """Converts a piece of Markdown within a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\*\*([^*]*)\*\*", r"\\fB\1\\fR", text)
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return re.sub(r"^([.'])", r"\\&\1", text)


def cells(row):
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def converted(lines):
    """Converts lines of Markdown to lines of a manual page."""
    out = []
    lines = iter(lines)
    for line in lines:
        if line.startswith("```"):
            out += [".PP", ".RS 4", ".EX"]
            for line in lines:
                if line.startswith("```"):
                    break
                out.append(roff(line) or "\\&")
            out += [".EE", ".RE"]
        elif line.startswith("|---"):
            # The line above was the head of a table.
            del out[-3:]
        elif line.startswith("|"):
            first, meaning, *default = cells(line)
            out += [".TP", roff(first)]
            note = f" [{default[0]}]" if default and default[0] else ""
            # An option without a description gets its own.
            out.append(roff(meaning + note) or "\\&")
        elif not line:
            out.append(".PP")
        else:
            out.append(roff(line))
    text = "\n".join(out)
    # A table ends the paragraph before it, and does not need its own.
    text = re.sub(r"(\.PP\n)+(?=\.(PP|TP|SH))", "", text)
    return text.strip("\n").split("\n")


def manual(readme, version):
    name = f'.TH DOTPROXY 1 "{DATE}" "dotproxy {version}"'
    about = re.split(r"\n\n", readme)[1].split("\n")
    parts = [
        [name, ".SH NAME", "dotproxy \\- plain DNS in, authenticated DNS over TLS out"],
        [".SH SYNOPSIS", ".B dotproxy", "\\fB\\-u\\fR \\fIUPSTREAM\\fR [\\fIOPTIONS\\fR]"],
        [".SH DESCRIPTION", *converted(about)],
        [".SH OPTIONS", *converted(section(readme, "Options"))],
        [".SH MONITORING", *converted(section(readme, "How it is doing"))],
        [".SH SEE ALSO", "\\fBresolv.conf\\fR(5), \\fBsystemd\\-resolved\\fR(8)"],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def bash(options):
    names = " ".join(f"--{long}" for _, long, _, _ in options)
    with_file = "|".join(
        name for short, long, value, _ in options if takes_file(value)
        for name in ([f"-{short}"] if short else []) + [f"--{long}"]
    )
    return f"""# Completion of dotproxy for bash.
_dotproxy() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    case $before in
        {with_file})
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            ;;
        *)
            mapfile -t COMPREPLY < <(compgen -W '{names}' -- "$word")
            ;;
    esac
}}
complete -o filenames -F _dotproxy dotproxy
"""


def zsh(options):
    lines = []
    for short, long, value, about in options:
        about = about.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
        action = ":_files" if takes_file(value) else ":"
        argument = f":{value.replace(':', chr(92) + ':')}{action}" if value else ""
        names = f"{{-{short},--{long}}}" if short else f"--{long}"
        lines.append(f"    '*'{names}'[{about}]{argument}' \\\n")
    return "#compdef dotproxy\n_arguments -s \\\n" + "".join(lines).rstrip(" \\\n") + "\n"


def fish(options):
    lines = ["# Completion of dotproxy for fish.", "complete -c dotproxy -f"]
    for short, long, value, about in options:
        about = about.replace("\\", "\\\\").replace("'", "\\'")
        line = "complete -c dotproxy"
        line += f" -s {short}" if short else ""
        line += f" -l {long}"
        line += (" -r -F" if takes_file(value) else " -x") if value else ""
        lines.append(f"{line} -d '{about}'")
    return "\n".join(lines) + "\n"


def takes_file(value):
    return value.startswith("FILE")


def main():
    readme = pathlib.Path(ROOT, "README.md").read_text()
    options = options_of_help(run(BINARY, "--help"))
    version = run(BINARY, "--version").split()[1]
    described = set(re.findall(r"--([a-z-]+)", " ".join(
        cells(line)[0] for line in section(readme, "Options") if line.startswith("| `-"))))
    known = {long for _, long, _, _ in options}
    missing = known - described - {"verbose"}
    assert not missing, f"the README says nothing of {sorted(missing)}"
    assert described <= known, f"there is no {sorted(described - known)}"
    files = {
        "dotproxy.1": manual(readme, version),
        "dotproxy.bash": bash(options),
        "_dotproxy": zsh(options),
        "dotproxy.fish": fish(options),
    }
    for name, text in files.items():
        path = pathlib.Path(ROOT, "man", name)
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                sys.exit(f"man/{name} is not what scripts/manual.py writes: run it")
        else:
            path.write_text(text)
    print(f"man/: {', '.join(files)}")


if __name__ == "__main__":
    main()
