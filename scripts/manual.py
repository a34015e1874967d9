#!/usr/bin/env python3
"""Writes the manual page and the shell completions, from `dotproxy --help` and docs/options.md.

  scripts/manual.py            writes man/
  scripts/manual.py --check    fails if a file in man/ is out of date

The completions have the options of --help. The manual page has the text of docs/options.md. Both
must have the same options.
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
    match = re.match(r"((?:-\w, )?--[a-z0-9-]+(?:, --[a-z0-9-]+)*(?: [A-Z]\S*)?) (.*)", line)
    assert match, line
    return match.groups()


# The sections of the manual page, and the sections of docs/options.md that they contain.
SECTIONS = {
    "OPTIONS": "Options",
    "UPSTREAM SPECIFICATION": "Upstream specification",
    "VALUES": "Values",
    "OPTIONS FILE": "Options file",
    "CHECKING THE CONFIGURATION": "Checking the configuration",
    "CHECKING THE UPSTREAMS": "Checking the upstreams",
    "RELOAD": "Reload",
    "SIGNALS": "Signals",
    "EXIT STATUS": "Exit codes",
    "ENVIRONMENT": "Environment",
    "FILES": "Files",
    "EXAMPLES": "Examples",
}


def section(text, title):
    """Returns the lines of a section of docs/options.md."""
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, f"docs/options.md has no section {title!r}"
    return re.split(r"\n## ", rest)[0].strip("\n").split("\n")


def options_of_document(text):
    """Returns the long names of the options in the first column of the option tables."""
    rows = [line for line in section(text, "Options") if line.startswith("| `-")]
    return set(re.findall(r"--([a-z0-9-]+)", " ".join(cells(row)[0] for row in rows)))


def roff(text):
    """Converts a line of Markdown."""
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
        elif line.startswith("### "):
            out += [f".SS {roff(line[4:]).capitalize()}"]
        elif line.startswith("|---"):
            # The line above was the head of a table.
            del out[-3:]
        elif line.startswith("|"):
            first, meaning, *default = cells(line)
            note = f" [{default[0]}]" if default and default[0] else ""
            out += [".TP", roff(first), roff(meaning + note)]
        elif line.startswith("- "):
            out += [".IP \\(bu 2", roff(line[2:])]
        elif not line:
            out.append(".PP")
        else:
            out.append(roff(line.strip()))
    text = "\n".join(out)
    # A paragraph before another paragraph, a table row, a list item or a heading is empty.
    text = re.sub(r"(\.PP\n)+(?=\.(PP|TP|IP|SS|SH))", "", text)
    # A paragraph after a heading needs no separator.
    text = re.sub(r"(\.SS [^\n]*\n)\.PP\n", r"\1", text)
    return text.strip("\n").split("\n")


def description(readme):
    """Returns the first paragraph of the README about the program."""
    paragraphs = re.split(r"\n\n", readme)
    return next(paragraph for paragraph in paragraphs if paragraph.startswith("dotproxy ")).split("\n")


def manual(readme, document, version):
    head = f'.TH DOTPROXY 1 "{DATE}" "dotproxy {version}"'
    parts = [
        [head, ".SH NAME", "dotproxy \\- DNS\\-over\\-TLS forwarder with a cache"],
        [".SH SYNOPSIS", ".B dotproxy", "\\fB\\-u\\fR \\fIUPSTREAM\\fR [\\fIOPTIONS\\fR]"],
        [".SH DESCRIPTION", *converted(description(readme))],
    ]
    parts += [[f".SH {name}", *converted(section(document, title))] for name, title in SECTIONS.items()]
    parts += [[
        ".SH SEE ALSO",
        "\\fBdig\\fR(1), \\fBkdig\\fR(1), \\fBresolv.conf\\fR(5), \\fBsystemd.socket\\fR(5),",
        "\\fBsystemd\\-resolved.service\\fR(8), \\fBunbound.conf\\fR(5)",
        ".PP",
        "The documents behaviour.md, monitoring.md, security.md and troubleshooting.md of the source,",
        "which packages install in /usr/share/doc/dotproxy.",
    ]]
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
    document = pathlib.Path(ROOT, "docs/options.md").read_text()
    options = options_of_help(run(BINARY, "--help"))
    version = run(BINARY, "--version").split()[1]
    described = options_of_document(document)
    known = {long for _, long, _, _ in options}
    missing = known - described
    assert not missing, f"docs/options.md does not describe {sorted(missing)}"
    assert described <= known, f"docs/options.md has unknown options: {sorted(described - known)}"
    files = {
        "dotproxy.1": manual(readme, document, version),
        "dotproxy.bash": bash(options),
        "_dotproxy": zsh(options),
        "dotproxy.fish": fish(options),
    }
    for name, text in files.items():
        path = pathlib.Path(ROOT, "man", name)
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                sys.exit(f"man/{name} is out of date: run scripts/manual.py")
        else:
            path.write_text(text)
    print(f"man/: {', '.join(files)}")


if __name__ == "__main__":
    main()
