#!/usr/bin/env python3
"""Checks the status page of dotproxy in Chromium: no errors, numbers that agree with /metrics and follow the
traffic, names that are shown as text, and a layout for narrow screens and dark mode.

  scripts/status_page_test.py [--binary PATH] [--screenshot FILE]

Prints a line for each check, and exits with 1 if one failed. --screenshot also writes an image of the page
under some traffic (docs/status-page.png). Needs the packages of scripts/install_test_deps.sh.
"""

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from testbed import PATIENCE_S, ROOT, ask, exchange, free_port, make_certificates, query, start_unbound, stop

NAME = "dot.example"
# Markup in place of a text of the data.
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;'\"<b>"


class Failure(Exception):
    """A check that failed, with the reason."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


class Browser:
    """Chromium, controlled over pipes (Chrome DevTools Protocol)."""

    def __init__(self, work):
        commands, self.commands = os.pipe()
        self.replies, replies = os.pipe()
        # The browser reads from descriptor 3 and writes to 4.
        command = f"exec chromium --headless=new --no-sandbox --disable-gpu --no-first-run --hide-scrollbars " \
                  f"--disable-background-networking --user-data-dir={work}/profile --remote-debugging-pipe " \
                  f"about:blank 3<&{commands} 4>&{replies}"
        with open(f"{work}/chromium.log", "w") as log:
            self.process = subprocess.Popen(["bash", "-c", command], pass_fds=[commands, replies], stdout=log, stderr=log)
        os.close(commands)
        os.close(replies)
        self.received, self.next_id, self.problems, self.session = b"", 1, [], None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Calls a method and returns its result."""
        number, self.next_id = self.next_id, self.next_id + 1
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self.read()
            if reply.get("id") == number:
                expect("error" not in reply, f"{method}: {reply.get('error')}")
                return reply["result"]

    def read(self):
        while b"\0" not in self.received:
            part = os.read(self.replies, 65536)
            expect(part, "Chromium has ended")
            self.received += part
        message, self.received = self.received.split(b"\0", 1)
        event = json.loads(message)
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded" and parameters["entry"]["level"] in ("warning", "error"):
            self.problems.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown" or method == "Runtime.consoleAPICalled":
            self.problems.append(json.dumps(parameters))
        return event

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        expect("exceptionDetails" not in result, f"{expression}: {result}")
        return result["result"].get("value")

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent")

    def await_that(self, what, condition):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            expect(time.monotonic() < end, f"{what}: the page shows {self.evaluate('document.body.innerText')!r}")
            time.sleep(0.1)

    def stop(self):
        stop(self.process)


class Scene:
    """unbound, dotproxy with a reachable and an unreachable upstream, and the page in a browser."""

    def __init__(self, stack, binary, work, names):
        upstream, self.plain, self.http = free_port(), free_port(), free_port()
        self.upstream = f"127.0.0.1:{upstream}#{NAME}"
        self.queries = 0
        stack.callback(stop, start_unbound(work, upstream))
        with open(f"{work}/ads", "w") as file:
            file.write("".join(f"{name}\n" for name in names))
        with open(f"{work}/dotproxy.log", "w") as log:
            self.process = subprocess.Popen(
                [binary, f"--listen=127.0.0.1:{self.plain}", f"--http-listen=127.0.0.1:{self.http}",
                 f"--upstream={self.upstream}", "--upstream=https://127.0.0.1:1,fallback",
                 f"--ca-file={work}/ca.pem", f"--block={work}/ads", "--memory-limit=16m"], stdout=log, stderr=log)
        stack.callback(stop, self.process)
        end = time.monotonic() + PATIENCE_S
        while ask(self.plain, "ready.example") is None:
            with open(f"{work}/dotproxy.log") as log:
                expect(time.monotonic() < end and self.process.poll() is None, f"no answer:\n{log.read()}")
            time.sleep(0.05)
        self.browser = Browser(work)
        stack.callback(self.browser.stop)
        self.browser.call("Page.navigate", url=self.url("/"))
        self.browser.await_that("the first values", lambda: self.browser.text("#state") == "ready")

    def url(self, path):
        return f"http://127.0.0.1:{self.http}{path}"

    def get(self, path, **fields):
        request = urllib.request.Request(self.url(path), headers=fields)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.headers, response.read()

    def metric(self, name):
        _, page = self.get("/metrics")
        values = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", page.decode(), re.M)
        expect(values, f"no {name}")
        return sum(float(value) for value in values)

    def ask(self, *names):
        for name in names:
            self.queries += 1
            exchange(self.plain, query(self.queries, name), PATIENCE_S)


def number(text):
    return float(re.sub(r"[^0-9.].*", "", text.replace(",", "")))


def check_response(scene):
    """The page is compressed, allows no foreign content, and is refused without gzip."""
    fields, body = scene.get("/", **{"Accept-Encoding": "gzip"})
    expect(fields["Content-Encoding"] == "gzip" and len(body) <= 32 * 1024, f"{len(body)} bytes, {fields}")
    policy = fields["Content-Security-Policy"]
    expect("default-src 'none'" in policy and "unsafe" not in policy, policy)
    try:
        scene.get("/")
    except urllib.error.HTTPError as error:
        expect(error.code == 406 and b"--compressed" in error.read(), f"{error}")
    else:
        raise Failure("a client without gzip got the page")


def check_numbers(scene):
    """The numbers of the page are those of /metrics, and follow the traffic."""
    browser = scene.browser
    # Each has another count.
    scene.ask("a.example", "a.example", "a.example", "b.example", "ads.example", "x.ads.example")
    queries = scene.metric("dotproxy_queries_total")
    browser.await_that("the queries", lambda: number(browser.text("#total")) == queries)
    shown = {
        "#misses": scene.metric("dotproxy_cache_hits_total"),
        "#size": scene.metric("dotproxy_cache_entries"),
        "#names": scene.metric("dotproxy_blocked_total"),
    }
    for selector, expected in shown.items():
        text = browser.text(selector)
        expect(number(text) == expected, f"{selector}: {text}, expected {expected}")
    expect(scene.metric("dotproxy_blocked_total") == 2, "two blocked queries")
    rows = browser.evaluate("Object.fromEntries([...document.querySelectorAll('#outcomes tr')].map(row => "
                            "[row.cells[0].textContent, row.cells[1].textContent]))")
    for outcome, count in rows.items():
        expected = scene.metric(f'dotproxy_query_outcomes_total{{outcome="{outcome}"}}')
        expect(number(count) == expected, f"{outcome}: {count}, expected {expected}")
    expect({"answered", "cached", "blocked"} <= rows.keys(), f"{rows}")
    # A probe of the program can come in between.
    browser.await_that("the queries to the upstream", lambda: number(browser.text("#upstreams article small"))
                       == scene.metric(f'dotproxy_upstream_queries_total{{upstream="{scene.upstream}"}}'))
    card = browser.text("#upstreams article")
    expect("X25519MLKEM768" in card or "X25519" in card, f"no key exchange: {card}")
    expect("certificate valid for" in card, f"no certificate: {card}")


def check_names(scene):
    """The texts of the data are shown as text, not as markup."""
    shown = scene.browser.evaluate(f"""fetch('status.json').then(response => response.json()).then(status => {{
        const text = {json.dumps(HOSTILE)};
        Object.assign(status, {{ ready: false, reason: text, version: text, outcomes: {{ [text]: 1 }},
                                 responses: {{ [text]: 1 }}, dnssec: {{ [text]: 1 }} }});
        status.upstreams.forEach(upstream => Object.assign(upstream, {{ name: text, key_exchange: text }}));
        const scripts = document.scripts.length;
        show(status);
        const count = document.body.textContent.split(text).length - 1;
        return [count, document.images.length, document.scripts.length - scripts];
    }})""")
    # Reason, version, three tables, and name and key exchange of two upstreams.
    expect(shown == [9, 0, 0], f"{shown}")


def check_restart(scene):
    """Counters that start again, after a restart or a reload, give no wrong latency or rate."""
    shown = scene.browser.evaluate("""fetch('status.json').then(response => response.json()).then(status => {
        const [slow] = status.upstreams;
        Object.assign(slow, { answers: 3, answers_seconds: 9 });
        show(structuredClone(status));
        // A reload: only the counters of upstreams start again.
        Object.assign(slow, { answers: 0, answers_seconds: 0 });
        show(structuredClone(status));
        Object.assign(slow, { answers: 4, answers_seconds: 0.008 });
        show(structuredClone(status));
        return document.querySelector('#upstreams article').textContent;
    })""")
    expect("2.00 ms" in shown and "-" not in shown, shown)


def check_privacy(scene):
    """The data names neither clients nor queries."""
    _, data = scene.get("/status.json")
    json.loads(data)
    for secret in [b"a.example", b"ads.example", b"192.0.2."]:
        expect(secret not in data, f"{secret} is in {data}")


def check_layout(scene):
    """The page fits a width of 360 pixels, and has dark colours."""
    browser = scene.browser
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=2, mobile=True)
    width = browser.evaluate("document.documentElement.scrollWidth")
    expect(width <= 360, f"{width} pixels")
    browser.call("Emulation.clearDeviceMetricsOverride")
    colours = []
    for scheme in ["light", "dark"]:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[feature])
        colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    brightness = [sum(map(int, re.findall(r"\d+", colour))) for colour in colours]
    expect(brightness[0] > 600 and brightness[1] < 150, f"{colours}")


def check_console(scene):
    """The browser has reported no error and no warning."""
    expect(not scene.browser.problems, f"{scene.browser.problems}")


def check_end(scene):
    """The page says so when the program does not answer."""
    stop(scene.process)
    scene.browser.await_that("the outage", lambda: "does not answer" in scene.browser.text("#problem"))
    expect(scene.browser.text("#state") == "unknown", "the old state is still shown")


def take_screenshot(scene, path):
    """Writes an image of the page after half a minute of traffic."""
    browser = scene.browser
    browser.call("Emulation.setDeviceMetricsOverride", width=1000, height=760, deviceScaleFactor=1, mobile=False)
    end = time.monotonic() + 40
    turn = 0
    while time.monotonic() < end:
        scene.ask(*[f"host{turn * at % 300}.example" for at in range(1, 40)], f"new{turn}.example")
        if turn % 3 == 0:
            scene.ask("ads.example", "tracker.example")
        turn += 1
        time.sleep(0.15)
    image = browser.call("Page.captureScreenshot", format="png")
    with open(path, "wb") as file:
        file.write(base64.b64decode(image["data"]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--screenshot", metavar="FILE")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [program for program in ["chromium", "unbound"] if not shutil.which(program)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}: run scripts/install_test_deps.sh")
    failed = 0
    names = ["ads.example", "tracker.example"]
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        make_certificates(work)
        scene = Scene(stack, arguments.binary, work, names)
        if arguments.screenshot:
            return take_screenshot(scene, arguments.screenshot)
        for check in [check_response, check_numbers, check_names, check_restart, check_privacy, check_layout, check_console, check_end]:
            label = check.__name__.removeprefix("check_")
            try:
                check(scene)
                print(f"ok: {label}", flush=True)
            except (Failure, OSError) as failure:
                failed += 1
                print(f"FAILED: {label}: {failure}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
