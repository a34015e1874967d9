#!/usr/bin/env python3
"""Checks Kubernetes manifests: by the schemas of Kubernetes, their options by the program, and each
against the others.

  scripts/check_manifests.py FILE BINARY

The options must be valid together, the ports of containers, Services, probes and network policies
must be those of the options, and the memory limit of the container must fit that of the program.
"""

import base64
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

from testbed import make_certificates

VERSION = "1.34"

# Resources that Kubernetes itself does not define, with the keys of their `spec`.
FOREIGN = {"ServiceMonitor": {"selector", "endpoints"}, "PrometheusRule": {"groups"}}

# Units of memory of Kubernetes and of the program.
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "": 1}

# Default ports of the schemes of upstreams.
PORTS = {"udp": 53, "tcp": 53, "tls": 853, "https": 443}

# Files that options name and their substitutes.
SUBSTITUTES = {"tls-cert": "server.pem", "tls-key": "server.key", "tls-client-ca": "ca.pem", "ca-file": "ca.pem",
               "client-cert": "server.pem", "client-key": "server.key"}


class Problem(Exception):
    """A manifest that is not right."""


def require(condition, problem):
    if not condition:
        raise Problem(problem)


def size(text):
    """Returns the bytes of a size of the program, or of a quantity of Kubernetes in Ki, Mi or Gi."""
    number, unit = re.fullmatch(r"([0-9]+)([A-Za-z]*)", str(text)).groups()
    return int(number) * UNITS[unit]


def options_of_file(text):
    """Returns options as arguments of the command line. A comment that proposes an option counts."""
    options, proposed = [], []
    for line in text.splitlines():
        match = re.fullmatch(r"(# )?([a-z][a-z0-9-]+)(?: = (\S+))?", line)
        if match and (match[3] or not match[1]):
            option = f"--{match[2]}={match[3]}" if match[3] else f"--{match[2]}"
            (proposed if match[1] else options).append(option)
    return options, proposed


def known_options(binary):
    return subprocess.run([binary, "--help"], capture_output=True, text=True, check=True).stdout


def check_options(binary, options, work):
    """Checks the options by the program, with substitutes for files of a Secret."""
    # The option is newer than some binaries.
    knows_reload = "--reload-interval" in known_options(binary)
    options = [option for option in options if knows_reload or not option.startswith("--reload-interval")]

    def substitute(match):
        return f"{match[1]}{match[2]}={work}/{SUBSTITUTES[match[2]]}"

    names = "|".join(SUBSTITUTES)
    options = [re.sub(rf"(^--|,)({names})=/etc/[^,]+", substitute, option) for option in options]
    result = subprocess.run([binary, *options, "--check-conf"], capture_output=True, text=True)
    require(result.returncode == 0, f"{' '.join(options)}: {result.stderr}")


def values_of(options, name):
    return [option.split("=", 1)[1] for option in options if option.startswith(f"--{name}=")]


def port_of(address, default):
    match = re.search(r"(?:@|\]:|^[^:]*:)([0-9]+)$", address)
    return int(match[1]) if match else default


def egress_of(options):
    """Returns the ports to which the program sends, as (port, protocol)."""
    ports = set()
    for upstream in values_of(options, "upstream"):
        scheme, _, address = upstream.split(",")[0].split("#")[0].rpartition("://")
        port = port_of(address.split("/")[0], PORTS[scheme or "tls"])
        ports |= {(port, "TCP")} | ({(port, "UDP")} if scheme == "udp" else set())
    for bootstrap in values_of(options, "bootstrap"):
        ports |= {(port_of(bootstrap, 53), "UDP"), (port_of(bootstrap, 53), "TCP")}
    for collector in values_of(options, "otlp"):
        ports.add((port_of(collector.removeprefix("http://").split("/")[0], 0), "TCP"))
    for reader in values_of(options, "dnstap"):
        if reader.startswith("tcp:"):
            ports.add((port_of(reader.removeprefix("tcp:"), 0), "TCP"))
    return ports


class Manifests:
    """The resources of a rendered file."""

    def __init__(self, path, binary, work):
        self.documents = [document for document in yaml.safe_load_all(pathlib.Path(path).read_text()) if document]
        self.binary = binary
        self.work = work

    def of_kind(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def check(self):
        for document in self.documents:
            self.check_schema(document)
        workloads = [document for document in self.documents if "template" in document.get("spec", {})]
        checked = sum(self.check_workload(workload) for workload in workloads)
        require(checked > 0, "no container of dotproxy was found")

    def check_schema(self, document):
        keys = FOREIGN.get(document["kind"])
        if keys is None:
            kubernetes_validate.validate(document, VERSION, strict=True)
        else:
            require(set(document["spec"]) == keys, f"{document['kind']}: {set(document['spec'])}")

    def check_workload(self, workload):
        """Checks the containers of dotproxy in a workload, and returns their number."""
        pod = workload["spec"]["template"]["spec"]
        found = 0
        for container in pod["containers"] + pod.get("initContainers", []):
            if container["name"] != "dotproxy":
                continue
            found += 1
            options, proposed = self.options_of(pod, container)
            check_options(self.binary, options, self.work)
            for one in proposed:
                check_options(self.binary, ["--upstream=192.0.2.1", one], self.work)
            check_container(pod, container, options)
            if container in pod["containers"]:
                labels = workload["spec"]["template"]["metadata"]["labels"]
                check_probes(container)
                self.check_budget(workload, labels)
                self.check_services(container, labels)
                self.check_policy(pod, container, labels, options + proposed)
        return found

    def options_of(self, pod, container):
        """Returns the options of a container and those that its options file proposes."""
        variables = {variable["name"]: variable["value"] for variable in container.get("env", []) if "value" in variable}
        arguments = [re.sub(r"\$\(([A-Z_]+)\)", lambda match: variables[match[1]], argument)
                     for argument in container["args"]]
        proposed = []
        if "-C" in arguments:
            at = arguments.index("-C")
            options, proposed = options_of_file(self.mounted(pod, container, arguments[at + 1]))
            arguments = options + arguments[:at] + arguments[at + 2:]
        return arguments, proposed

    def mounted(self, pod, container, path):
        """Returns the text of a file in a volume of a ConfigMap or Secret."""
        folder, name = os.path.split(path)
        mount = next(mount for mount in container["volumeMounts"] if mount["mountPath"] == folder)
        volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
        if "configMap" in volume:
            source = volume["configMap"]["name"]
            decode = str
        else:
            source = volume["secret"]["secretName"]
            decode = lambda text: base64.b64decode(text).decode()
        found = [document for document in self.of_kind("ConfigMap", "Secret") if document["metadata"]["name"] == source]
        require(len(found) == 1, f"no ConfigMap or Secret {source}")
        return decode(found[0]["data"][name])

    def check_budget(self, workload, labels):
        """A budget must leave a pod to evict, also of pods that are not ready."""
        scalers = self.of_kind("HorizontalPodAutoscaler")
        replicas = scalers[0]["spec"]["minReplicas"] if scalers else workload["spec"].get("replicas", 1)
        budgets = [budget for budget in self.of_kind("PodDisruptionBudget")
                   if budget["spec"]["selector"]["matchLabels"].items() <= labels.items()]
        if workload["kind"] == "Deployment" and replicas > 1:
            require(len(budgets) == 1 or not scalers, "no PodDisruptionBudget")
        for budget in budgets:
            require(replicas > 1, "a PodDisruptionBudget for a single pod blocks drains")
            spec = budget["spec"]
            require(spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow", "budget: pods that are not ready stay")
            require(spec.get("minAvailable", 0) in (0, *range(replicas)) or "%" in str(spec["minAvailable"]),
                    f"budget: minAvailable {spec.get('minAvailable')} of {replicas} pods")

    def check_services(self, container, labels):
        """Each Service names a port of the container, and serves both address families if possible."""
        names = {port["name"] for port in container["ports"]}
        services = [service for service in self.of_kind("Service")
                    if service["spec"]["selector"].items() <= labels.items()]
        require(services, "no Service")
        served = {port["targetPort"] for service in services for port in service["spec"]["ports"]}
        require(served <= names, f"Services: {served} are not in {names}")
        require(names - served <= {"http"}, f"Services: no port for {names - served}")
        for service in services:
            require("ipFamilyPolicy" in service["spec"], "Service: no ipFamilyPolicy")

    def check_policy(self, pod, container, labels, options):
        """The network policy allows what the options need, and clients on the network of a node."""
        for policy in self.of_kind("NetworkPolicy"):
            spec = policy["spec"]
            require(spec["podSelector"]["matchLabels"].items() <= labels.items(), "NetworkPolicy: selects no pod")
            require(not pod.get("hostNetwork"), "NetworkPolicy: without effect with hostNetwork")
            allowed = {(port["port"], port["protocol"]) for rule in spec["egress"] for port in rule["ports"]}
            missing = egress_of(options) - allowed
            require(not missing, f"NetworkPolicy: the options need {sorted(missing)}")
            # kustomize adds the labels of the program to matchLabels, also to those of other pods.
            peers = [selector for rule in spec["egress"] for peer in rule.get("to", [])
                     if (selector := peer.get("podSelector")) is not None]
            require(all(not selector.get("matchLabels", {}).items() & labels.items() for selector in peers),
                    f"NetworkPolicy: outgoing rules select the pods of the program: {peers}")
            clients = [rule for rule in spec["ingress"] if {"port": "dns", "protocol": "UDP"} in rule["ports"]]
            entered = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            require(entered == {port["name"] for port in container["ports"]}, f"NetworkPolicy: ports {entered}")
            require(all(rule.get("from") != [{"namespaceSelector": {}}] for rule in clients),
                    "NetworkPolicy: pods on the network of a node are excluded")


def check_probes(container):
    """An outage of the upstreams must not take a pod out of its Service, and not restart it."""
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    require(paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz?latch", "livenessProbe": "/healthz"},
            f"probes: {paths}")
    startup = container["startupProbe"]
    require(startup["failureThreshold"] * startup["periodSeconds"] >= 300, "startupProbe: too short for an outage")


def check_container(pod, container, options):
    """A container must be confined, and its ports and memory must be those of the options."""
    context = {**pod.get("securityContext", {}), **container["securityContext"]}
    require(context["runAsNonRoot"] and context["readOnlyRootFilesystem"], context)
    require(context["allowPrivilegeEscalation"] is False, context)
    require(context["capabilities"] == {"drop": ["ALL"]}, context)
    require(context["seccompProfile"] == {"type": "RuntimeDefault"}, context)
    require("livenessProbe" in container, "no probe")
    require(re.search(":[^/]+$", container["image"]), "no version of the image")
    limit = size(container["resources"]["limits"]["memory"])
    limits = values_of(options, "memory-limit")
    require(limits, "no --memory-limit")
    process = size(limits[-1].lower())
    require(process <= limit, f"--memory-limit {process} exceeds the limit of the container, {limit}")
    http = values_of(options, "http-listen")
    require(http and all(value.startswith(":") for value in http), "--http-listen: not every address family")
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    if ports:
        expected = {"dns": values_of(options, "port"), "http": [http[0][1:]],
                    **{name: [value.rsplit(":", 1)[1] for value in values_of(options, option)]
                       for name, option in [("dns-tls", "tls-listen"), ("dns-https", "https-listen")]}}
        for name, values in expected.items():
            require({str(ports[name])} == set(values) if name in ports else not values, f"port {name}: {values}")


def main():
    path, binary = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        manifests = Manifests(path, binary, work)
        try:
            manifests.check()
        except Problem as problem:
            sys.exit(f"{path}: {problem}")
    print(f"{len(manifests.documents)} resources are right")


if __name__ == "__main__":
    main()
