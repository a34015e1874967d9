#!/usr/bin/env python3
"""Checks the commands and files in the documents about Kubernetes.

  scripts/check_kubernetes_docs.py BINARY

Blocks of YAML begin with the name of their file: values.yaml is rendered by Helm, kustomization.yaml
by kubectl together with the other files of its section (also a block of text that begins with the
name of its file), and scripts/check_manifests.py checks the results. Commands of Helm and `kubectl apply -k` are rendered likewise; other commands of kubectl must
name a resource that exists. The memory table must be that of the program.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import yaml

from testbed import ROOT

DOCUMENTS = ["docs/kubernetes.md", "deploy/helm/dotproxy/README.md"]
CHART = "deploy/helm/dotproxy"
# Resources that a cluster has.
OF_THE_CLUSTER = {("kube-system", "service", "kube-dns"), ("kube-system", "configmap", "coredns"),
                  ("kube-system", "configmap", "node-local-dns")}
# Flags of `helm install` and `helm upgrade` that `helm template` does not need.
NOT_FOR_TEMPLATE = {"--create-namespace", "--reuse-values"}


def run(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout


class Checker:
    """Renders what the documents name, in a copy of deploy/."""

    def __init__(self, binary, work):
        self.binary = binary
        self.work = pathlib.Path(work)
        shutil.copytree("deploy", self.work / "deploy")
        self.count = 0

    def check_manifests(self, text):
        path = self.work / "rendered.yaml"
        path.write_text(text)
        run("scripts/check_manifests.py", str(path), self.binary)
        return [document for document in yaml.safe_load_all(text) if document]

    def kustomize(self, folder):
        return self.check_manifests(run("kubectl", "kustomize", str(folder)))

    def template(self, *arguments):
        return self.check_manifests(run("helm", "template", *arguments, "--no-hooks"))

    def check_section(self, section):
        """Checks the blocks of a section. Files with the same name are alternatives."""
        blocks = re.findall(r"^```(\w+)\n(.*?)^```", section, re.M | re.S)
        files = {}
        for kind, text in blocks:
            name = re.match(r"# (\S+)\n", text)
            if kind == "yaml":
                assert name, f"a block without the name of its file: {text}"
                files.setdefault(name[1], []).append(text)
            elif kind == "text" and name:
                files.setdefault(name[1], []).append(text)
        folder = self.work / "overlay"
        for text in files.get("values.yaml", []):
            (self.work / "values.yaml").write_text(text)
            self.template("dns", CHART, "--namespace", "dotproxy", "-f", str(self.work / "values.yaml"))
            self.count += 1
        for text in files.pop("kustomization.yaml", []):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            shutil.copy("deploy/kubernetes/common/dotproxy.conf", folder)
            for name, texts in files.items():
                (folder / name).write_text(texts[0])
            for name in "tls.crt", "tls.key", "ca.pem":
                (folder / name).write_text("placeholder\n")
            (folder / "kustomization.yaml").write_text(text)
            self.kustomize(folder)
            self.count += 1
        for kind, text in blocks:
            if kind == "sh":
                for line in text.replace("\\\n", " ").splitlines():
                    self.check_command(shlex.split(line, comments=True))

    def check_command(self, words):
        self.count += 1
        match words:
            case ["helm", "install" | "upgrade", *arguments]:
                arguments = [argument for argument in arguments if argument not in NOT_FOR_TEMPLATE]
                self.template(*(str(self.work / "values.yaml") if argument == "values.yaml" else argument
                                for argument in arguments))
            case ["helm", "test", "dns", "--namespace", "dotproxy"]:
                assert "helm.sh/hook: test" in run("helm", "template", "dns", CHART)
            case ["kubectl", "apply", "-k", folder]:
                self.kustomize(self.work / folder)
            case ["sed", "-i", _, _]:
                before = (self.work / words[-1]).read_text()
                run(*words, cwd=self.work)
                rendered = run("kubectl", "kustomize", str((self.work / words[-1]).parent))
                assert "image: registry.example/dotproxy:" in rendered, before
            case ["helm", "template", *_]:
                self.check_options(words)
            case ["dotproxy", "-C", "dotproxy.conf", "--check-conf"]:
                run(self.binary, *words[1:], cwd=self.work)
            case ["kubectl", "-n", namespace, *rest]:
                verbs = {("get",), ("edit",), ("delete",), ("rollout", "restart")}
                verb = next(verb for verb in verbs if tuple(rest[:len(verb)]) == verb)
                kind, name, *_ = rest[len(verb):]
                assert (namespace, kind, name) in self.known_resources(), f"no {kind} {name} in {namespace}"
            case ["docker", "build", "-t", _, "."] | ["docker", "push", _]:
                pass
            case _:
                raise AssertionError(f"unknown command: {shlex.join(words)}")

    def check_options(self, words):
        """Extracts the options file of the chart, by the command of the document."""
        command = " ".join(word if word in "|>" else shlex.quote(word) for word in words)
        run("sh", "-c", command.replace("values.yaml", str(self.work / "values.yaml"))
            .replace("> dotproxy.conf", f"> {self.work}/dotproxy.conf"))
        assert "upstream = " in (self.work / "dotproxy.conf").read_text(), "no options"

    def known_resources(self):
        documents = [*self.kustomize(self.work / "deploy/kubernetes/monitoring"),
                     *self.template("dns", CHART, "--namespace", "dotproxy")]
        return OF_THE_CLUSTER | {("dotproxy", document["kind"].lower(), document["metadata"]["name"])
                                 for document in documents}


def budget(container_mib, tls):
    """Returns waiting queries, MiB of cache and TCP clients, as in src/config/budget.rs."""
    client = 16384 if tls else 1024
    rest = container_mib * 3 * (1 << 20) // 4 - (2176 + 1024) * 1024
    queries = min(4096, rest // 4 // 1024)
    clients = max(4, min(256, rest // 8 // client))
    cache = rest - queries * 1024 - clients * client - min(4 << 20, rest // 8) - min(256 << 10, rest // 16)
    return queries, cache, clients


def check_table(text):
    rows = re.findall(r"^\| (\d+) MiB[^|]*\| (\d+) MiB \| (.*) \|$", text, re.M)
    assert len(rows) >= 5, "no table of memory"
    for container, process, rest in rows:
        assert int(process) == int(container) * 3 // 4, container
        queries, cache, clients = budget(int(container), False)
        tls_queries, tls_cache, tls_clients = budget(int(container), True)
        assert queries == tls_queries
        expected = f"{queries:,} | {cache / (1 << 20):.1f} MiB | {clients} | {tls_cache / (1 << 20):.1f} MiB | {tls_clients}"
        assert rest == expected, f"{container} MiB: {expected}"


def main():
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as work:
        checker = Checker(os.path.abspath(sys.argv[1]), work)
        for document in DOCUMENTS:
            text = pathlib.Path(document).read_text()
            for section in re.split(r"^## ", text, flags=re.M):
                try:
                    checker.check_section(section)
                except AssertionError as problem:
                    sys.exit(f"{document}: {section.splitlines()[0]}: {problem}")
        check_table(pathlib.Path("docs/kubernetes.md").read_text())
    print(f"{checker.count} commands and files of {len(DOCUMENTS)} documents are right")


if __name__ == "__main__":
    main()
