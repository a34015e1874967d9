#!/usr/bin/env python3
"""Checks the dashboard and rules of deploy/ against a Prometheus that scrapes a running dotproxy.

Every metric must exist, and Prometheus must accept every query.

  scripts/check_dashboard.py http://127.0.0.1:9090 http://127.0.0.1:9153
"""

import json
import re
import sys
import urllib.parse
import urllib.request

from testbed import ROOT

NAME = re.compile(r"\b(?:dotproxy|process)_[a-z0-9_]+")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def metrics_of(page):
    names = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if line[:1] != "#"}
    # A metric without a sample still has its TYPE line.
    names |= set(re.findall(r"^# TYPE (\S+)", page, re.M))
    return names


def queries_of_dashboard():
    with open(f"{ROOT}/deploy/grafana/dotproxy.json") as file:
        dashboard = json.load(file)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            yield panel["title"], query


def main():
    prometheus, program = sys.argv[1:]
    known = metrics_of(get(f"{program}/metrics"))
    problems, seen = [], 0
    for title, query in queries_of_dashboard():
        seen += 1
        for name in set(NAME.findall(query)) - known:
            problems.append(f"dashboard, {title}: there is no {name}")
        url = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        try:
            get(url)
        except urllib.error.HTTPError as error:
            problems.append(f"dashboard, {title}: {json.load(error)['error']}")
    for name in "rules", "alerts":
        with open(f"{ROOT}/deploy/prometheus/{name}.yaml") as file:
            named = set(NAME.findall(re.sub(r"instance:\S+", "", file.read())))
        seen += len(named)
        for metric in named - known:
            problems.append(f"{name}.yaml: unknown metric {metric}")
    print("\n".join(problems) or f"{seen} queries and metrics are right")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
