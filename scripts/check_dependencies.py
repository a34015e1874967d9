#!/usr/bin/env python3
"""Checks licences, sources and versions of all dependencies against deny.toml.

The script reads the same settings as cargo-deny, and does not have to be installed.

  scripts/check_dependencies.py
"""

import collections
import json
import re
import sys
import tomllib

from testbed import ROOT, run


def may_be_used(expression, allowed):
    """Returns whether these licences alone satisfy a licence expression (SPDX)."""
    # Old packages use a slash for OR.
    tokens = re.findall(r"[()]|[^\s()/]+|/", expression)
    known = {"OR": "or", "/": "or", "AND": "and", "(": "(", ")": ")"}
    words, is_exception = [], False
    for token in tokens:
        if is_exception:
            is_exception = False
        elif token == "WITH":
            # An exception only grants further rights.
            is_exception = True
        else:
            words.append(known.get(token) or str(token in allowed))
    return bool(words) and eval(" ".join(words), {"__builtins__": {}})


def problems(packages, rules):
    allowed = set(rules["licenses"]["allow"])
    banned = {ban["crate"] for ban in rules["bans"]["deny"]}
    skipped = {skip["crate"] for skip in rules["bans"].get("skip", [])}
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    versions = collections.defaultdict(set)
    for package in packages:
        name, version, source = package["name"], package["version"], package["source"]
        versions[name].add(version)
        if not may_be_used(package["license"] or "", allowed):
            yield f"{name} {version}: licence {package['license']}"
        if name in banned:
            yield f"{name} {version}: banned"
        # A package without a source is in this repository.
        if source and source not in registries:
            yield f"{name} {version}: comes from {source}"
    own = {package["version"] for package in packages if not package["source"]}
    if len(own) > 1:
        yield f"the crates of this repository have versions {' and '.join(sorted(own))}"
    for name, several in versions.items():
        if len(several) > 1 and name not in skipped:
            yield f"{name}: versions {' and '.join(sorted(several))}"


def main():
    with open(f"{ROOT}/deny.toml", "rb") as file:
        rules = tomllib.load(file)
    manifest, target = f"{ROOT}/Cargo.toml", rules["graph"]["targets"][0]
    metadata = json.loads(run("cargo", "metadata", "--all-features", "--locked", "--format-version", "1",
                              "--manifest-path", manifest, "--filter-platform", target))
    found = sorted(problems(metadata["packages"], rules))
    print("\n".join(found) or f"{len(metadata['packages'])} packages conform to deny.toml")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
