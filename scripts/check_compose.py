#!/usr/bin/env python3
"""Checks the Compose file: by the specification of Compose, and its options by the program.

  scripts/check_compose.py BINARY

The options are those of the image's entry point followed by the command of the service.
"""

import json
import pathlib
import re
import subprocess
import sys

import yaml
from compose_spec import PyCompose

from check_manifests import size
from testbed import ROOT

FILE = pathlib.Path(ROOT, "deploy/compose/compose.yaml")


def instruction(name):
    """Returns the words of the last instruction of the Dockerfile with this name."""
    text = pathlib.Path(ROOT, "Dockerfile").read_text()
    return json.loads(re.findall(rf"^{name} .*?(\[.*\])$", text, re.M)[-1])


def main():
    binary = sys.argv[1]
    text = FILE.read_text()
    # Raises ValueError if the file does not conform to the specification.
    PyCompose.from_yaml(text).validate()
    service = yaml.safe_load(text)["services"]["dotproxy"]
    options = [*instruction("ENTRYPOINT")[1:], *service["command"]]
    subprocess.run([binary, *options, "--check-conf"], check=True)
    probe = instruction("HEALTHCHECK")
    assert service["healthcheck"]["test"] == ["CMD", *probe], service["healthcheck"]
    limit = next(option for option in options if option.startswith("--memory-limit=")).split("=")[1]
    assert size(limit) <= size(service["mem_limit"]), service["mem_limit"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"], service
    published = {port.split(":", 1)[1] for port in service["ports"]}
    assert published >= {"53:53/udp", "53:53/tcp"}, published
    print(f"{len(options)} options of the Compose file are right")


if __name__ == "__main__":
    main()
