#!/usr/bin/env python3
"""Compares the verdicts of dotproxy and unbound on a tree of signed, unsigned and broken zones.

The zones are signed by BIND's dnssec-signzone below a root of their own. NSD serves them, and an
unbound without validation resolves them over TLS, for dotproxy and for an unbound that validates.
Each name is asked of both validators.

  scripts/dnssec_tree.py [--binary PATH]       prints a table; exits with 1 if a verdict differs
  scripts/dnssec_tree.py --messages FILE       writes the signed messages, for the unit tests

Needs the packages of scripts/install_test_deps.sh.
"""

import argparse
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

from testbed import PATIENCE_S, ROOT, UNBOUND_HEAD, free_port, make_certificates, run, stop

# Zones from the leaves to the root: options of dnssec-keygen, options of dnssec-signzone, and how
# the zone is broken. A child zone comes before its parent.
SIGNED = {
    "rsa256.tld1": ("-a RSASHA256 -b 2048", "", ""),
    "rsa512.tld1": ("-a RSASHA512 -b 2048", "", ""),
    "p384.tld1": ("-a ECDSAP384SHA384", "", ""),
    "ed25519.tld1": ("-a ED25519", "", ""),
    "ed448.tld1": ("-a ED448", "", ""),
    "sha1.tld1": ("-a RSASHA1 -b 2048", "", ""),
    "nsec3.tld1": ("-a ECDSAP256SHA256", "-3 ABCD -H 5", ""),
    "many.tld1": ("-a ECDSAP256SHA256", "-3 ABCD -H 100", ""),
    "optout.tld1": ("-a ECDSAP256SHA256", "-3 - -H 0 -A", ""),
    "expired.tld1": ("-a ECDSAP256SHA256", "-P -s 20200101000000 -e 20200201000000", ""),
    "future.tld1": ("-a ECDSAP256SHA256", "-P -s 20900101000000 -e 20900201000000", ""),
    "wrongkey.tld1": ("-a ECDSAP256SHA256", "", "other-ds"),
    "unsigned.tld1": ("-a ECDSAP256SHA256", "", "unsigned"),
    "stripped.tld1": ("-a ECDSAP256SHA256", "", "strip-a"),
    "forged.tld1": ("-a ECDSAP256SHA256", "", "forge-a"),
    "nodenial.tld1": ("-a ECDSAP256SHA256", "", "strip-nsec"),
    "keys.tld1": ("-a RSASHA256 -b 2048", "", "many-keys"),
    "deep.down.below.tld1": ("-a ECDSAP256SHA256", "", ""),
    "tld1": ("-a ECDSAP256SHA256", "", ""),
    "tld3": ("-a RSASHA256 -b 1024", "-3 - -H 0 -A", ""),
    ".": ("-a ECDSAP256SHA256", "", ""),
}
# Zones that are delegated without DS.
UNSIGNED = ["insecure.tld1", "below.optout.tld1", "plain", "company.tld3",
            "1.2.3.4.5.6.7.8.9.a.b.c.d.e.f.0.1.2.3.4.5.6.7.8.9.a.b.c.d.e.f.0.ed25519.tld1"]

CONTENT = """
@ IN SOA ns.{origin} host.{origin} 1 3600 600 86400 300
@ IN NS ns.{origin}
ns IN A 127.0.0.1
www IN A 192.0.2.1
www IN AAAA 2001:db8::1
txt IN TXT "a" "b"
mail IN MX 10 WWW.{origin}
alias IN CNAME www
outside IN CNAME www.rsa256.tld1.
insecure-alias IN CNAME www.insecure.tld1.
broken-alias IN CNAME www.expired.tld1.
dangling IN CNAME nothing.nsec3.tld1.
*.wild IN A 192.0.2.2
real.wild IN A 192.0.2.3
a.deep.ent IN A 192.0.2.4
renamed IN DNAME nsec3.tld1.
"""

LABELS = ["www", "txt:TXT", "mail:MX", "alias", "outside", "insecure-alias", "broken-alias",
          "dangling", "x.wild", "a.b.wild", "real.wild", "x.wild:TXT", "x.wild:NSEC", "a.b.wild:NSEC",
          "*.wild:NSEC", "www:NSEC", "nothing:NSEC", "ent", "deep.ent", "nothing",
          "nothing.at.all", "www:TXT", "www:ANY", "www:RRSIG", "www.renamed", "renamed:DNAME",
          "nothing.renamed", ":SOA", ":NS", ":DNSKEY", ":DS", ":MX", "ns:DS", "wild", "WwW"]
# Those in the messages for unit tests.
LABELS_OF_FEW = ["www", "alias", "insecure-alias", "broken-alias", "dangling", "x.wild", "a.b.wild",
                 "x.wild:TXT", "ent", "nothing.at.all", "www:TXT", "www.renamed", ":SOA", ":MX"]
LABELS_OF_OTHERS = ["www", "x.wild", "nothing"]
# The labels above without records of type A.
DENIED = ["ent", "deep.ent", "nothing", "nothing.at.all", "wild", "x.wild", "a.b.wild"]
# Zones that unbound finds secure. dotproxy does not support Ed448, SHA-1 (RFC 9905), and more than
# 50 iterations of NSEC3 (RFC 9276, section 3.2; unbound: 150).
INSECURE_HERE = ["ed448.tld1", "sha1.tld1", "many.tld1"]
TYPES = {"A": 1, "NS": 2, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28, "DNAME": 39, "DS": 43,
         "RRSIG": 46, "NSEC": 47, "DNSKEY": 48, "ANY": 255}


def fqdn(zone):
    return zone if zone == "." else f"{zone}."


class Tree:
    """The zones, as files below a folder. `more` has further records by zone."""

    def __init__(self, work, signed=SIGNED, unsigned=UNSIGNED, more={}):
        self.work, self.more = work, more
        self.signed, self.unsigned = signed, unsigned
        self.ds = {}
        self.files = {}
        for zone in unsigned:
            self.write(zone, self.text(zone))
        for zone, options in signed.items():
            self.sign(zone, *options)

    def parent_of(self, zone):
        """Returns the zone above."""
        labels = zone.split(".")
        for start in range(1, len(labels)):
            parent = ".".join(labels[start:])
            if parent in self.signed or parent in self.unsigned:
                return parent
        return "."

    def path(self, zone):
        return os.path.join(self.work, f"zone-{zone}")

    def write(self, zone, text):
        self.files[zone] = self.path(zone)
        with open(self.files[zone], "w") as file:
            file.write(text)

    def text(self, zone):
        """Returns the records of a zone, its delegations and the glue of those."""
        origin = fqdn(zone)
        names = CONTENT.format(origin="" if zone == "." else origin)
        if zone == ".":
            names = ". IN SOA ns. host. 1 3600 600 86400 300\n. IN NS ns.\nns. IN A 127.0.0.1\n"
        lines = [f"$ORIGIN {origin}", "$TTL 300", names]
        lines.append(self.more.get(zone, ""))
        for child in [*self.signed, *self.unsigned]:
            if child != "." and self.parent_of(child) == zone:
                lines.append(f"{child}. IN NS ns.{child}.\nns.{child}. IN A 127.0.0.1")
                lines.append(self.ds.get(child, ""))
        return "\n".join(lines) + "\n"

    def key(self, zone, options):
        name = run("dnssec-keygen", "-q", *options.split(), "-f", "KSK", "-K", self.work, fqdn(zone))
        return os.path.join(self.work, name.strip())

    def ds_of(self, key):
        return run("dnssec-dsfromkey", "-2", key)

    def sign(self, zone, key_options, options, fault):
        key = self.key(zone, key_options)
        self.ds[zone] = self.ds_of(self.key(zone, key_options) if fault == "other-ds" else key)
        others = [self.key(zone, key_options) for _ in range(20 if fault == "many-keys" else 0)]
        self.ds[zone] = "".join([self.ds_of(other) for other in others[:8]] + [self.ds[zone]])
        self.write(zone, self.text(zone))
        if fault == "unsigned":
            return
        plain = self.files[zone]
        with open(plain, "a") as file:
            for published in [key, *others]:
                file.write(open(f"{published}.key").read())
        self.files[zone] = f"{plain}.signed"
        run("dnssec-signzone", "-z", "-q", *options.split(), "-o", fqdn(zone), "-O", "full",
            "-f", self.files[zone], plain, key, cwd=self.work)
        self.damage(zone, fault)

    def damage(self, zone, fault):
        """Changes the signed records of a zone."""
        with open(self.files[zone]) as file:
            lines = file.read().splitlines()

        def is_kept(line):
            fields = line.split()
            is_www = fields[:1] == [f"www.{zone}."]
            if fault == "strip-a":
                return not (is_www and fields[3:5] == ["RRSIG", "A"])
            if fault == "strip-nsec":
                return fields[3:4] != ["NSEC"] and fields[3:5] != ["RRSIG", "NSEC"]
            return True

        lines = [line for line in lines if is_kept(line)]
        if fault == "forge-a":
            lines = [line.replace("192.0.2.1", "192.0.2.66") if line.startswith("www.") else line
                     for line in lines]
        with open(self.files[zone], "w") as file:
            file.write("\n".join(lines) + "\n")


COMMON = UNBOUND_HEAD + """
  verbosity: 1
  do-not-query-localhost: no
  val-log-level: 2
  ede: yes
  qname-minimisation: no
  minimal-responses: no
  edns-buffer-size: 1232
"""


def start(work, name, port, text):
    conf = os.path.join(work, f"{name}.conf")
    with open(conf, "w") as file:
        file.write(COMMON.format(work=work, name=name, port=port) + text)
    run("unbound-checkconf", conf)
    return subprocess.Popen(["unbound", "-d", "-c", conf], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


NSD = """
server:
  ip-address: 127.0.0.1@{port}
  username: ""
  zonesdir: "{work}"
  database: ""
  pidfile: "{work}/nsd.pid"
  logfile: "{work}/nsd.log"
  xfrdfile: "{work}/xfrd.state"
  zonelistfile: "{work}/zone.list"
  xfrdir: "{work}"
  server-count: 1
remote-control:
  control-enable: no
"""


def start_server(work, port, files):
    """Starts the authoritative server of the zones."""
    conf = os.path.join(work, "nsd.conf")
    with open(conf, "w") as file:
        file.write(NSD.format(work=work, port=port))
        for zone, path in files.items():
            file.write(f'zone:\n  name: "{fqdn(zone)}"\n  zonefile: "{path}"\n')
    run("nsd-checkconf", conf)
    return subprocess.Popen(["nsd", "-d", "-c", conf], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def start_resolver(work, ports, server_port, zones, settings=""):
    """Starts an unbound that resolves the zones without validation, over TLS as well."""
    text = f'  module-config: "iterator"\n  interface: 127.0.0.1@{ports["tls"]}\n'
    text += f'  tls-port: {ports["tls"]}\n  tls-service-key: "{work}/server.key"\n'
    text += f'  tls-service-pem: "{work}/server.pem"\n{settings}'
    for zone in zones:
        text += f'stub-zone:\n  name: "{fqdn(zone)}"\n'
        text += f"  stub-addr: 127.0.0.1@{server_port}\n  stub-no-cache: no\n"
    return start(work, "resolver", ports["plain"], text)


def wire_name(name):
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def ask(port, name, number, flags=0x0120, dnssec=True, timeout=5.0):
    """Returns the answer over TCP, or nothing."""
    opt = b"\0\0\x29\x04\xd0\0\0" + (b"\x80\0" if dnssec else b"\0\0") + b"\0\0"
    query = struct.pack("!6H", 1, flags, 1, 0, 0, 1) + wire_name(name)
    query += struct.pack("!2H", number, 1) + opt
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as stream:
            stream.sendall(struct.pack("!H", len(query)) + query)
            file = stream.makefile("rb")
            (length,) = struct.unpack("!H", file.read(2))
            return file.read(length)
    except (OSError, struct.error):
        return None


def await_answer(port, process, name="www.rsa256.tld1"):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        answer = ask(port, name, 1, timeout=1.0)
        if answer and answer[3] & 15 == 0:
            return
        time.sleep(0.1)
    raise SystemExit(f"no answer on port {port}")


def questions():
    for zone in [*SIGNED, *UNSIGNED]:
        for label in LABELS:
            label, _, rr_type = label.partition(":")
            name = f"{label}.{zone}".strip(".") if label else zone.strip(".")
            yield name, rr_type or "A"


def verdict(answer):
    """Returns the response code and AD."""
    if answer is None:
        return "no response"
    rcode = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 6: "YXDOMAIN"}
    code = rcode.get(answer[3] & 15, str(answer[3] & 15))
    return f"{code} {'secure' if answer[3] & 0x20 else 'insecure'}" if code != "SERVFAIL" else code


def start_reference(work, anchor, resolver):
    """Starts an unbound that validates. Returns it with its port."""
    port = free_port()
    forward = f'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{resolver["plain"]}\n'
    settings = f'  module-config: "validator iterator"\n  trust-anchor-file: "{anchor}"\n'
    settings += "  aggressive-nsec: no\n"
    reference = start(work, "reference", port, settings + forward)
    await_answer(port, reference)
    return reference, port


def expected_verdict(port, name, rr_type):
    """Returns unbound's verdict, or the right one where that differs."""
    found = verdict(ask(port, name, TYPES[rr_type]))
    zone = max((zone for zone in [*SIGNED, *UNSIGNED] if f".{name}".endswith(f".{zone}")), key=len,
               default=".")
    if zone in INSECURE_HERE and (rr_type != "DS" or name != zone):
        return found.replace(" secure", " insecure") if is_concerned(zone, rr_type, name) else found
    return found


def is_concerned(zone, rr_type, name):
    """Returns whether the verdict rests on what dotproxy does not support."""
    if zone != "many.tld1":
        return True
    # Only denials have iterations.
    label = name.removesuffix(zone).strip(".")
    is_denied = rr_type == "TXT" and label != "txt" or label in DENIED or rr_type in ("MX", "DS", "NSEC")
    return is_denied and not (label == "mail" and rr_type == "MX")


def compare(reference_port, anchor, resolver, work, binary):
    port = free_port()
    log = open(os.path.join(work, "dotproxy.log"), "w")
    ours = subprocess.Popen(
        [binary, "-l", "127.0.0.1", "-p", str(port), "-u", f"127.0.0.1:{resolver['tls']}",
         "--ca-file", f"{work}/ca.pem", "--dnssec", "on", "--trust-anchor", anchor,
         "--no-sandbox"], stderr=log, stdout=log)
    try:
        await_answer(port, ours)
        differences = count = secure = 0
        for name, rr_type in questions():
            expected = expected_verdict(reference_port, name, rr_type)
            answer = ask(port, name, TYPES[rr_type])
            found = verdict(answer)
            count += 1
            secure += found.endswith(" secure")
            is_explained = found != "SERVFAIL" or b"/" in answer[-80:]
            if expected != found or not is_explained:
                differences += 1
                print(f"{name or '.'} {rr_type}: expected {expected}, dotproxy {found}")
        print(f"{count} questions, {secure} secure answers, {differences} verdicts are wrong")
        with open(log.name) as file:
            lines = file.read()
        if "DNSSEC validation failed" not in lines or "tld1" in lines:
            differences += 1
            print(f"expected one warning without a queried name in the log:\n{lines}")
        return differences
    finally:
        stop(ours)


def write_messages(tree, resolver, reference_port, path):
    """Writes the anchor, and verdict and answer in hexadecimal of some questions."""
    zones = [".", "tld1", "nsec3.tld1", "optout.tld1", "below.optout.tld1",
             "expired.tld1", "wrongkey.tld1", "stripped.tld1", "forged.tld1", "nodenial.tld1",
             "unsigned.tld1", "insecure.tld1", "deep.down.below.tld1", "many.tld1"]
    few = ["deep.down.below.tld1", "nsec3.tld1", "optout.tld1"]
    asked = []
    for zone in zones:
        for label in LABELS_OF_FEW if zone in few else LABELS_OF_OTHERS:
            label, _, rr_type = label.partition(":")
            asked.append((f"{label}.{zone}".strip("."), rr_type or "A"))
    needed = [(zone.strip("."), rr_type) for zone in zones for rr_type in ("DS", "DNSKEY")]
    for name, _ in asked:
        labels = name.split(".")
        needed += [(".".join(labels[start:]), "DS") for start in range(len(labels))]
    lines = [f"anchor {tree.ds['.'].strip()}", f"time {int(time.time())}"]
    for name, rr_type in dict.fromkeys(asked + needed):
        answer = ask(resolver["plain"], name, TYPES[rr_type], flags=0x0110)
        found = expected_verdict(reference_port, name, rr_type).split()[-1].lower()
        is_asked = (name, rr_type) in asked
        lines.append(f"{name or '.'} {rr_type} {found if is_asked else '-'} {answer.hex()}")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=f"{ROOT}/target/release/dotproxy")
    parser.add_argument("--messages")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        make_certificates(work)
        tree = Tree(work)
        server_port = free_port()
        resolver = {"plain": free_port(), "tls": free_port()}
        server = start_server(work, server_port, tree.files)
        middle = start_resolver(work, resolver, server_port, tree.files)
        try:
            await_answer(resolver["plain"], middle)
            anchor = os.path.join(work, "anchor")
            with open(anchor, "w") as file:
                file.write(tree.ds["."])
            reference, reference_port = start_reference(work, anchor, resolver)
            try:
                if arguments.messages:
                    write_messages(tree, resolver, reference_port, arguments.messages)
                    return 0
                wrong = compare(reference_port, anchor, resolver, work, arguments.binary)
                return int(wrong > 0)
            finally:
                stop(reference)
        finally:
            stop(middle)
            stop(server)


if __name__ == "__main__":
    sys.exit(main())
