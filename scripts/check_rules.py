#!/usr/bin/env python3
"""Runs the tests of the alerts with the labels that Prometheus gives to targets in Kubernetes.

  scripts/check_rules.py MANIFESTS

MANIFESTS is a rendered file with a Service, a ServiceMonitor and a PrometheusRule. The rules of the
PrometheusRule are tested by promtool with deploy/prometheus/alerts_test.yaml, where each target has
the labels that the Prometheus operator derives from the ServiceMonitor. Each alert must have a
target for which it fires and one for which it does not.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from testbed import ROOT


def only(documents, kind, test=lambda document: True):
    found = [document for document in documents if document["kind"] == kind and test(document)]
    assert len(found) == 1, f"{len(found)} resources of kind {kind}"
    return found[0]


def target_labels(documents):
    """Returns the labels of a target, as the Prometheus operator derives them."""
    monitor = only(documents, "ServiceMonitor")["spec"]
    selected = monitor["selector"]["matchLabels"].items()
    service = only(documents, "Service", lambda service: selected <= service["metadata"]["labels"].items())
    labels = {"namespace": service["metadata"].get("namespace", "default"), "service": service["metadata"]["name"],
              "pod": "dotproxy-0", "container": "dotproxy", "endpoint": monitor["endpoints"][0]["port"],
              "job": service["metadata"]["name"]}
    if "jobLabel" in monitor:
        labels["job"] = service["metadata"]["labels"].get(monitor["jobLabel"], labels["job"])
    for relabeling in monitor["endpoints"][0].get("relabelings", []):
        assert set(relabeling) == {"targetLabel", "replacement"}, relabeling
        labels[relabeling["targetLabel"]] = relabeling["replacement"]
    return labels


def with_labels(tests, labels):
    """Gives these labels to every series with an instance and to every alert that keeps them."""
    text = ",".join(f'{name}="{value}"' for name, value in labels.items())
    for test in tests:
        for series in test["input_series"]:
            series["series"] = re.sub('job="dotproxy"', text, series["series"])
        for case in test["alert_rule_test"]:
            for alert in case["exp_alerts"]:
                if "instance" in alert["exp_labels"]:
                    alert["exp_labels"].update(labels)


def instances(test):
    found = [re.search('instance="([^"]+)"', series["series"]) for series in test["input_series"]]
    return {match[1] for match in found}


def problems_of(tests, alerts):
    """Yields alerts without a case in which they fire, or without one in which they do not."""
    firing, silent = set(), set()
    for test in tests:
        for case in test["alert_rule_test"]:
            fires_for = {alert["exp_labels"].get("instance") for alert in case["exp_alerts"]}
            if fires_for:
                firing.add(case["alertname"])
            if instances(test) - fires_for and (not fires_for or None not in fires_for):
                silent.add(case["alertname"])
    for name in alerts - firing:
        yield f"{name}: no test in which it fires"
    for name in alerts - silent:
        yield f"{name}: no test in which it does not fire"


def main():
    documents = [document for document in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text()) if document]
    groups = only(documents, "PrometheusRule")["spec"]
    alerts = {rule["alert"] for group in groups["groups"] for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load(pathlib.Path(ROOT, "deploy/prometheus/alerts_test.yaml").read_text())
    labels = target_labels(documents)
    with_labels(tests["tests"], labels)
    problems = list(problems_of(tests["tests"], alerts))
    if problems:
        sys.exit("\n".join(problems))
    with tempfile.TemporaryDirectory() as work:
        pathlib.Path(work, "rules.yaml").write_text(yaml.safe_dump(groups))
        tests["rule_files"] = ["rules.yaml"]
        pathlib.Path(work, "tests.yaml").write_text(yaml.safe_dump(tests))
        done = subprocess.run(["promtool", "test", "rules", "tests.yaml"], cwd=work, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    print(f"{len(alerts)} alerts fire and do not fire as tested, with job={labels['job']}")


if __name__ == "__main__":
    main()
