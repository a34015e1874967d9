#!/usr/bin/env python3
"""Generates the parts of deploy/ that repeat other files.

The rules and alerts of deploy/prometheus become a PrometheusRule for kustomize and a file of the
chart. The comments of the chart's values.yaml become a table in its README.md; the schema of the
values must name the same values.

  scripts/generate_manifests.py [--check]

With --check, no file is written, and the exit code is 1 if a file is not as generated.
"""

import json
import pathlib
import re
import sys
import textwrap

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMETHEUS = ROOT / "deploy/prometheus"
CHART = ROOT / "deploy/helm/dotproxy"
NOTE = "# Generated from deploy/prometheus by scripts/generate_manifests.py.\n"
TABLE = re.compile(r"(<!-- values: generated .*?-->\n).*?(<!-- end of the values -->)", re.S)

PROMETHEUS_RULE = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dotproxy
  labels:
    app.kubernetes.io/name: dotproxy
spec:
"""


def rule_groups():
    """Returns the text of all groups of rules, below one key `groups`."""
    text = "groups:\n"
    for name in "rules", "alerts":
        text += (PROMETHEUS / f"{name}.yaml").read_text().split("groups:\n")[1]
    return text


def documented_values():
    """Yields the path, the comment and the default of each value with a comment in values.yaml."""
    text = (CHART / "values.yaml").read_text()
    comment, path = [], []
    for line in text.splitlines():
        match = re.match(r"( *)# ?(.*)", line)
        if match:
            comment.append(match[2])
            continue
        match = re.match(r"( *)([A-Za-z]+):", line)
        if match:
            path = path[: len(match[1]) // 2] + [match[2]]
            if comment:
                yield path, " ".join(comment)
        comment = []


def value_at(path):
    value = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in path:
        value = value[key]
    return value


def table_of_values():
    lines = ["| value | meaning | default |", "|---|---|---|"]
    documented = list(documented_values())
    for path, comment in documented:
        has_parts = any(len(other) > len(path) and other[: len(path)] == path for other, _ in documented)
        default = "" if has_parts else f"`{json.dumps(value_at(path), ensure_ascii=False)}`"
        comment = comment.replace("|", "\\|")
        lines.append(f"| `{'.'.join(path)}` | {comment} | {default} |")
    return "\n".join(lines) + "\n"


def readme():
    text = (CHART / "README.md").read_text()
    assert TABLE.search(text), "README.md of the chart: the markers of the table are missing"
    return TABLE.sub(lambda match: match[1] + table_of_values() + match[2], text)


def leaves(values, path=()):
    """Yields the paths of values that are no objects, and of objects without an entry."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def problems_of_values():
    """Yields values without a comment, and differences between values.yaml and its schema."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    documented = {tuple(path) for path, _ in documented_values()}
    for leaf in leaves(values):
        if not any(leaf[:length] in documented for length in range(1, len(leaf) + 1)):
            yield f"values.yaml: {'.'.join(leaf)} has no comment"

    def compare(properties, values, path):
        # Most options of the program have no default in the chart; check_chart_values.py compares their names.
        if path == ("options",):
            return
        for key in sorted(set(properties) ^ set(values)):
            if (*path, key) != ("global",):
                where = "values.yaml" if key in properties else "values.schema.json"
                yield f"{where}: {'.'.join((*path, key))} is missing"
        for key in set(properties) & set(values):
            inner = properties[key]
            if inner.get("additionalProperties") is False and "properties" in inner and key != "resources":
                yield from compare(inner["properties"], values[key], (*path, key))

    yield from compare(schema["properties"], values, ())


def main():
    check = sys.argv[1:] == ["--check"]
    groups = rule_groups()
    files = {
        CHART / "files/rules.yaml": NOTE + groups,
        ROOT / "deploy/kubernetes/monitoring/prometheusrule.yaml":
            NOTE + PROMETHEUS_RULE + textwrap.indent(groups, "  "),
        CHART / "README.md": readme(),
    }
    problems = list(problems_of_values())
    for path, text in files.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            problems.append(f"{path.relative_to(ROOT)}: run scripts/generate_manifests.py")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(files)} files are {'as generated' if check else 'written'}")


if __name__ == "__main__":
    main()
