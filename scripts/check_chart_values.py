#!/usr/bin/env python3
"""Checks that each value of the chart has an effect, and that its schema has the options of the program.

  scripts/check_chart_values.py VALUES...

VALUES are files for `helm template`. Each value that the chart documents must be in one of them, and
the manifests must change when it is left out.
"""

import copy
import json
import pathlib
import re
import subprocess
import sys

import yaml

from generate_manifests import CHART, ROOT, documented_values


def rendered(values):
    done = subprocess.run(["helm", "template", "dns", str(CHART), "-f", "-"], input=yaml.safe_dump(values), text=True,
                          capture_output=True)
    return done.stdout if done.returncode == 0 else done.stderr


def without(values, path):
    """Returns the values without the one at this path, or None if it is not among them."""
    values = copy.deepcopy(values)
    inner = values
    for key in path[:-1]:
        inner = inner.get(key)
        if not isinstance(inner, dict):
            return None
    return values if inner.pop(path[-1], None) is not None else None


def is_effective(path, sets):
    for values, full in sets:
        fewer = without(values, path)
        if fewer is not None and rendered(fewer) != full:
            return True
    return False


def check_options():
    """The schema names the options of the program."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    named = set(schema["properties"]["options"]["properties"])
    table = set(re.findall(r'^        long: "([a-z-]+)",$', (ROOT / "src/options/table.rs").read_text(), re.M))
    if named != table:
        sys.exit(f"values.schema.json: other options than in src/options/table.rs: {', '.join(sorted(named ^ table))}")


def main():
    check_options()
    sets = [yaml.safe_load(pathlib.Path(path).read_text()) for path in sys.argv[1:]]
    sets = [(values, rendered(values)) for values in sets]
    documented = [path for path, _ in documented_values()]
    leaves = [path for path in documented if not any(other[:-1] == path for other in documented)]
    idle = [".".join(path) for path in leaves if not is_effective(path, sets)]
    if idle:
        sys.exit("without effect, or in no file of values: " + ", ".join(idle))
    print(f"{len(leaves)} values have an effect")


if __name__ == "__main__":
    main()
