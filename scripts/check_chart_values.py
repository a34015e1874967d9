#!/usr/bin/env python3
"""Checks that each value of the chart has an effect, and that its schema has the options of the program.

  scripts/check_chart_values.py VALUES...

VALUES are files for `helm template`. Each value that the chart documents must be in one of them, and
the manifests must change when it is left out. Wrong values must be refused.
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
    table = {name for part in (ROOT / "src/options/table").glob("*.rs")
             for name in re.findall(r'^        long: "([a-z0-9-]+)",$', part.read_text(), re.M)}
    if named != table:
        sys.exit(f"values.schema.json: other options than in src/options/table: {', '.join(sorted(named ^ table))}")


# Values that the chart refuses, each with a part of the message.
REFUSED = [
    ("upstreams: []", "upstreams: expected one or more upstreams, like"),
    ("upstreams: [1.1.1.1 9.9.9.9]", 'upstreams: "1.1.1.1 9.9.9.9": expected an upstream without spaces'),
    ("upstreams: ['1.1.1.1:99999']", 'upstreams: "1.1.1.1:99999": expected a port from 1 to 65535'),
    ("upstreams: ['[2001:db8::1]:0']", "expected a port from 1 to 65535"),
    ("upstreams: ['tls://dns.quad9.net']", "a host name needs options.bootstrap"),
    ("upstreams: ['dns.quad9.net@853']", "a host name needs options.bootstrap"),
    ("upstreams: ['1.1.1.1,domains=a']", 'after a comma, not "domains=a"'),
    ("upstreams: ['1.1.1.1#']", 'upstreams: "1.1.1.1#": expected a host name after #'),
    ("upstreams: [300.1.1.1]", 'upstreams: "300.1.1.1": expected an IPv4 address of four numbers from 0 to 255'),
    ("upstreams: ['h3://1.1.1.1']", "HTTP/3 and DNS over QUIC are not supported"),
    ("upstreams: ['https://1.1.1.256/dns-query']", "four numbers from 0 to 255"),
    ("upstreams: ['UDP://10.0.0.53']", "expected domain= with udp://"),
    ("upstreams: ['1.1.1.1,pin-sha256=abc']", "expected a SHA-256 digest in base64 after pin-sha256="),
    ("upstreams: ['1.1.1.1,client-cert=/a/c,client-key=/a/k']", 'upstreams: client-cert=: "/a/c": no volume has this'),
    ("options: {hosts: /etc/hosts.lan}", 'options.hosts: "/etc/hosts.lan": no volume has this file'),
    ("options: {block: [/etc/ads]}", 'options.block: "/etc/ads": no volume has this file'),
    ("options: {trust-anchor: [/etc/anchors]}", 'options.trust-anchor: "/etc/anchors": no volume has this file'),
    ("options: {query-log: '/var/log/dns.json,sample=2'}", 'options.query-log: "/var/log/dns.json": the root file'),
    ("options: {clock-stamp: /var/lib/time}", 'options.clock-stamp: "/var/lib/time": the root file system is read-only'),
    ("options: {cache-file: /var/lib/cache}", 'options.cache-file: "/var/lib/cache": the root file system is read-only'),
    ("{options: {clock-stamp: /etc/dotproxy-secret/a}, existingSecret: a}", "the root file system is read-only"),
    ("{options: {query-log: /l/a}, extraVolumes: [{name: l, configMap: {name: l}}], "
     "extraVolumeMounts: [{name: l, mountPath: /l, readOnly: true}]}", "no volume that can be written has this file"),
    ("options: {rate-limit: 0}", "options.rate-limit: 0: expected queries per second from 1 to 1000000"),
    ("options: {rate-limit: ''}", "options.rate-limit"),
    ("options: {rate-limit: 5/0}", 'options.rate-limit: "5/0": expected queries per second from 1 to 1000000'),
    ("options: {reload-interval: 500ms}", 'options.reload-interval: "500ms": expected a duration from 1s to 365d, or 0'),
    ("options: {allow: 10.0.0.1/33}", 'options.allow: "10.0.0.1/33": expected a prefix length from 0 to 32'),
    ("options: {allow: [10.0.0.1/8]}", 'options.allow: "10.0.0.1/8": expected a network whose host bits are zero'),
    ("options: {deny: 'fd00::/129'}", 'options.deny: "fd00::/129": expected a prefix length from 0 to 32 (IPv6'),
    ("options: {deny: 10.0.0.256}", 'options.deny: "10.0.0.256": expected a network like'),
    ("options: {cache-size: 32Mi}", 'options.cache-size: "32Mi": expected a size of the program, whose units are powers'),
    ("options: {memory-limit: 12Mi}", "write 12m"),
    ("options: {timeout: 1m}", "terminationGracePeriodSeconds: 15: expected 66 or more: 5 s for clients"),
    ("terminationGracePeriodSeconds: 10", "options.timeout (5s) for pending queries"),
    ("options: {timeout: 5000}", 'options.timeout: "5000": expected a duration from 100ms to 1h'),
    ("options: {serve-stale: 366d}", "options.serve-stale: \"366d\": expected a duration up to 365d"),
    ("options: {cache-size: 8MB}", 'options.cache-size: "8mb": expected a number of bytes, or a size like'),
    ("options: {memory-limit: 4m}", "options.memory-limit: 4m: expected 5m or more"),
    ("options: {deny: x}", 'options.deny: "x": expected a network like'),
    ("options: {bootstrap: abc}", 'options.bootstrap: "abc": expected an IP address like'),
    ("options: {user: nobody}", "options.user: the chart sets this option: use the value podSecurityContext"),
    ("containerPorts: {dns: 9153}", "containerPorts.http: 9153: containerPorts.dns has the same port"),
    ("containerPorts: {dns: 53}", "containerPorts.dns: 53: expected a port from 1024"),
    ("autoscaling: {minReplicas: 9}", "autoscaling.minReplicas: 9: expected at most autoscaling.maxReplicas (8)"),
    ("podDisruptionBudget: {maxUnavailable: 0}", "podDisruptionBudget.maxUnavailable (0) allows no eviction"),
    ("podDisruptionBudget: {maxUnavailable: 0%}", "podDisruptionBudget.maxUnavailable (0%) allows no eviction"),
    ("podDisruptionBudget: {minAvailable: 100%}", "podDisruptionBudget.minAvailable (100%) allows no eviction"),
    ("podDisruptionBudget: {minAvailable: 51%}", "podDisruptionBudget.minAvailable (51%) allows no eviction"),
    ("tls: {clientCertificates: true}", "tls.clientCertificates: expected tls.secretName"),
    ("tls: {https: true}", "tls.https: expected tls.secretName"),
    ("{tls: {secretName: a, https: true}, containerPorts: {https: 8853}}", "has the same port: choose another one"),
    ("tls: {secretName: Bad_Name}", 'tls.secretName: "Bad_Name": expected the name of a Secret'),
    ("service: {clusterIP: banana}", 'service.clusterIP: "banana": expected an IP address'),
]
# Values that are close to those above and valid.
ACCEPTED = [
    "{upstreams: ['tls://dns.quad9.net'], options: {bootstrap: '[fd00::a]:53'}}",
    "upstreams: ['fe80::1%eth0', '2001:db8::1', '[2001:db8::1]', 9.9.9.9#dns.quad9.net, 2001:db8::1@853#dns.example]",
    "options: {timeout: 100ms, serve-stale: 365d, reload-interval: 0, memory-limit: 5m, deny: ['::1', 10.0.0.0/8]}",
    "{options: {timeout: 1m}, terminationGracePeriodSeconds: 66}",
    "{options: {rate-limit: 1000000/2000, allow: [0.0.0.0/0, 10.0.0.1/32, 10.128.0.0/9, 'fd00::/64'], query-log: /dev/null}}",
    "{options: {rate-limit: 100, query-log: '-,sample=2', clock-stamp: null, trust-anchor: /etc/dotproxy-secret/a}, "
    "existingSecret: a, upstreams: ['TLS://1.1.1.1,dnssec,domain=a', 'UDP://1.1.1.1:5353,domain=b']}",
    "{options: {query-log: /l/a, ca-file: /l/ca.pem}, extraVolumes: [{name: l, emptyDir: {}}], "
    "extraVolumeMounts: [{name: l, mountPath: /l}]}",
    "{options: {query-log: /l/a, ca-file: /l/ca.pem}, extraVolumes: [{name: l, emptyDir: {}}], "
    "extraVolumeMounts: [{name: l, mountPath: /l/}]}",
    "{options: {clock-stamp: /var/lib/time}, securityContext: {readOnlyRootFilesystem: false}}",
    "{options: {ca-file: /ca.pem}, extraVolumes: [{name: l, configMap: {name: l}}], "
    "extraVolumeMounts: [{name: l, mountPath: /ca.pem, subPath: ca.pem}]}",
    "{containerPorts: {tls: 5353, https: 9153}, podDisruptionBudget: {minAvailable: 50%}, service: {clusterIP: None}}",
    "{containerPorts: {dns: 53}, podSecurityContext: {sysctls: [{name: a, value: '0'}]}}",
    "{kind: DaemonSet, autoscaling: {minReplicas: 9}, podDisruptionBudget: {maxUnavailable: 0}}",
]


def check_refusals():
    """Wrong values are refused with a sentence that names value and expectation."""
    problems = []
    for text, message in REFUSED:
        output = rendered(yaml.safe_load(text))
        if message not in output:
            problems.append(f"{text}: expected the message {message!r}, found: {output[:300]}")
    for text in ACCEPTED:
        output = rendered(yaml.safe_load(text))
        if output.startswith("Error"):
            problems.append(f"{text}: {output}")
    if problems:
        sys.exit("\n".join(problems))


def main():
    check_options()
    check_refusals()
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
