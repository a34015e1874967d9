#!/usr/bin/env python3
"""Renders the Helm chart as `helm template` does, with a Python implementation of its templates.

  scripts/render_chart.py CHART [VALUES]

VALUES, a YAML file, overrides those of the chart. The result must conform to the schema of the
chart. Other checks of Helm and hooks are not covered, and no cluster is contacted.
"""

import json
import pathlib
import sys

import jsonschema
import yaml
from gotpl.exts.helm import HelmTemplateEngine


def merged(one, other):
    """Merges values as Helm does: objects are merged, everything else is replaced."""
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def main():
    chart = pathlib.Path(sys.argv[1])
    values = yaml.safe_load((chart / "values.yaml").read_text())
    for path in sys.argv[2:]:
        values = merged(values, yaml.safe_load(pathlib.Path(path).read_text()) or {})
    try:
        jsonschema.validate(values, json.loads((chart / "values.schema.json").read_text()))
    except jsonschema.ValidationError as error:
        sys.exit(f"values: {error.json_path}: {error.message}")
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    context = {
        "Values": values,
        "Chart": {key[0].upper() + key[1:]: value for key, value in about.items()},
        "Release": {
            "Name": "dns", "Namespace": "dns", "Service": "Helm", "IsInstall": True, "Revision": 1,
        },
        "Capabilities": {"KubeVersion": {"Version": "v1.34.0", "Major": "1", "Minor": "34"}},
    }
    folder = chart / "templates"
    sources = {
        str(path.relative_to(chart)): path.read_text() for path in sorted(folder.rglob("*.*"))
    }
    engine = HelmTemplateEngine(sources, strict=True)
    files = [name for name in sources if not name.endswith(".tpl")]
    rendered = engine.render({name: context for name in files})
    for name, text in rendered.items():
        if name.endswith(".txt"):
            assert "dotproxy" in text, text
        elif text.strip():
            print(f"---\n# {name}\n{text}")


if __name__ == "__main__":
    main()
