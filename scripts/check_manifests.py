#!/usr/bin/env python3
"""Checks Kubernetes manifests with the schemas of Kubernetes, and their options with the program.

  scripts/check_manifests.py FILE BINARY
"""

import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

VERSION = "1.34"

# Resources that Kubernetes itself does not define.
FOREIGN = {"ServiceMonitor"}


def check_options(binary, options):
    result = subprocess.run([binary, *options, "--check-conf"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def check_pod(pod):
    """Checks a pod: it must be confined and must have resource limits."""
    containers = pod["containers"] + pod.get("initContainers", [])
    for container in containers:
        if container["name"] != "dotproxy":
            continue
        context = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"], context
        assert context["allowPrivilegeEscalation"] is False, context
        assert context["capabilities"] == {"drop": ["ALL"]}, context
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, context
        assert container["resources"]["limits"]["memory"] == "16Mi", container["resources"]
        assert "livenessProbe" in container, "no probe"
        assert ":" in container["image"], "no version of the image"
        yield container


def main():
    path, binary = sys.argv[1:]
    documents = [document for document in yaml.safe_load_all(pathlib.Path(path).read_text())]
    checked_options = 0
    for document in documents:
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, VERSION, strict=True)
        for text in document.get("data", {}).values():
            if document["kind"] == "ConfigMap":
                with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
                    file.write(text)
                    file.flush()
                    check_options(binary, ["-C", file.name])
                checked_options += 1
        pod = document.get("spec", {}).get("template", {}).get("spec")
        for container in check_pod(pod) if pod else ():
            if "-C" not in container["args"]:
                check_options(binary, container["args"])
                checked_options += 1
    assert checked_options > 0, "no options were found"
    print(f"{len(documents)} resources are right")


if __name__ == "__main__":
    main()
