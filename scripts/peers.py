"""The forwarders of Debian that dotproxy is compared with: plain DNS from clients, TLS upstream.

Each forwards to 127.0.0.1#dot.example. For forwarded queries its cache is disabled if possible;
knot-resolver cannot disable it, but no name is queried twice.
"""

from dataclasses import dataclass, field
from typing import Callable


@dataclass
class Settings:
    """The parameters of a program under test."""
    work: str
    port: int
    upstream: int
    has_cache: bool


@dataclass
class Peer:
    label: str
    command: list
    # The path of the settings file in the folder, and the function that returns its text.
    place: str
    conf: Callable[[Settings], str]
    workloads: list = field(default_factory=list)


def unbound(to):
    size, no_cache = ("64m", "no") if to.has_cache else ("0", "yes")
    return f"""
server:
  num-threads: 1
  directory: "{to.work}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: "{to.work}/unbound.log"
  interface: 127.0.0.1@{to.port}
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  module-config: "iterator"
  tls-cert-bundle: "{to.work}/ca.pem"
  outgoing-range: 4096
  num-queries-per-thread: 2048
  incoming-num-tcp: 1000
  outgoing-num-tcp: 50
  tcp-reuse-timeout: 60000
  msg-cache-size: {size}
  rrset-cache-size: {size}
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-tls-upstream: yes
  forward-no-cache: {no_cache}
  forward-addr: 127.0.0.1@{to.upstream}#dot.example
"""


def stubby(to):
    return f"""
resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list:
  - GETDNS_TRANSPORT_TLS
tls_authentication: GETDNS_AUTHENTICATION_REQUIRED
tls_query_padding_blocksize: 128
tls_ca_file: "{to.work}/ca.pem"
round_robin_upstreams: 1
idle_timeout: 10000
listen_addresses:
  - 127.0.0.1@{to.port}
upstream_recursive_servers:
  - address_data: 127.0.0.1
    tls_port: {to.upstream}
    tls_auth_name: "dot.example"
"""


def dnsdist(to):
    cache = 'getPool(""):setCache(newPacketCache(200000, {maxTTL=86400}))' if to.has_cache else ""
    return f"""
setLocal("127.0.0.1:{to.port}")
setSecurityPollSuffix("")
setMaxTCPClientThreads(1)
newServer({{address="127.0.0.1:{to.upstream}", tls="openssl", caStore="{to.work}/ca.pem",
  subjectName="dot.example", validateCertificates=true, healthCheckMode="up"}})
{cache}
"""


def knot_resolver(to):
    return f"""
net.listen('127.0.0.1', {to.port}, {{ kind = 'dns' }})
cache.size = 100 * MB
trust_anchors.remove('.')
modules = {{ 'policy' }}
modules.unload('refuse_nord')
policy.add(policy.all(policy.TLS_FORWARD({{
  {{'127.0.0.1@{to.upstream}', hostname='dot.example', ca_file='{to.work}/ca.pem'}} }})))
"""


def smartdns(to):
    """smartdns cannot use the authority's file, so it does not authenticate the upstream."""
    return f"""
bind 127.0.0.1:{to.port}
bind-tcp 127.0.0.1:{to.port}
cache-size {200000 if to.has_cache else 0}
cache-persist no
prefetch-domain no
serve-expired no
speed-check-mode none
response-mode fastest-response
log-level fatal
server-tls 127.0.0.1:{to.upstream} -no-check-certificate -host-name dot.example
"""


def pdns_recursor(to):
    """The recursor does not trust the test authority, so it does not authenticate the upstream.
    It supports TLS only on port 853."""
    return f"""
local-address=127.0.0.1:{to.port}
allow-from=127.0.0.0/8
dont-query=
forward-zones-recurse=.=127.0.0.2:853
dot-to-port-853=yes
threads=1
dnssec=off
security-poll-suffix=
socket-dir={to.work}
quiet=yes
loglevel=0
daemon=no
{'' if to.has_cache else 'disable-packetcache=yes'}
"""


ALL = ["forwarded", "kept", "cached", "one socket", "over TCP", "new sessions"]

PEERS = [
    Peer("unbound", ["unbound", "-d", "-c", "{work}/unbound.conf"], "unbound.conf", unbound,
         ALL),
    Peer("knot-resolver", ["kresd", "-n", "-c", "{work}/kresd.conf", "{work}/kresd"], "kresd.conf",
         knot_resolver, ALL),
    Peer("smartdns", ["smartdns", "-f", "-x", "-p", "-", "-c", "{work}/smartdns.conf"], "smartdns.conf",
         smartdns, ALL),
    Peer("dnsdist", ["dnsdist", "--supervised", "--disable-syslog", "-C", "{work}/dnsdist.lua"],
         "dnsdist.lua", dnsdist, ALL),
    Peer("stubby", ["stubby", "-C", "{work}/stubby.yml"], "stubby.yml", stubby,
         ["forwarded", "new sessions"]),
    Peer("pdns-recursor", ["pdns_recursor", "--config-dir={work}/recursor"], "recursor/recursor.conf",
         pdns_recursor, ["cached", "one socket", "over TCP"]),
]
