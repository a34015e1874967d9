#!/bin/bash
# Runs the units of deploy/systemd, with the commands and files of deploy/README.md, under a systemd
# that is process 1 of its own namespaces. Its root is that of this host, with changes that end with
# the script.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/namespace.sh
. scripts/namespace.sh
need dig dnsperf dnstap-ldns fstrm_capture kdig logrotate nsenter shellcheck systemctl
# Starts the resolver of the test on another port.
start_resolver() { # port
    sed -E "s/(interface: 127.0.0.1@|tls-port: ).*/\1$1/" "$work/unbound.conf" >"$work/resolver.conf"
    kill "${pids[0]}"
    unbound -d -c "$work/resolver.conf" &
    pids[0]=$!
    await is_connectable "$1"
}
start_unbound 853

# Runs systemd in its own namespaces, with a copy of this repository and its own journal, and without
# hardware management.
become_systemd() {
    set -e
    local root=$work/space/root place device
    mount --make-rprivate /
    mount -t tmpfs tmpfs "$work/space"
    mkdir "$work/space"/{changes,scratch,root}
    mount -t overlay overlay "$root" \
        -o "lowerdir=/,upperdir=$work/space/changes,workdir=$work/space/scratch"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    for place in dev run tmp etc/systemd/system usr/lib/systemd/system/{sysinit,sockets}.target.wants; do
        mount -t tmpfs -o mode=755 tmpfs "$root/$place"
    done
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    ln -s /proc/self/fd pts/ptmx "$root/dev/"
    rm -rf "$root/var/log/journal"
    touch "$work/mounted"

    mkdir -p "$root/run/checkout/target/release"
    install "$binary" "$root/run/checkout/target/release/dotproxy"
    cp -r deploy "$root/run/checkout/"
    install -m 644 "$work/ca.pem" "$root/etc/dotproxy-ca.pem"
    mkdir "$root/etc/systemd/system/dotproxy.service.d"
    # Short, but long enough that a slow process on a busy machine does not look like one that
    # hangs.
    printf '[Service]\nWatchdogSec=6\n' >"$root/etc/systemd/system/dotproxy.service.d/soon.conf"

    cd "$root"
    pivot_root . mnt
    umount --lazy /mnt
    # A container manager does this; systemd mounts credentials in a namespace that shares mounts.
    mount --make-rshared /
    exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --unit=sysinit.target --log-target=null
}
export work binary
export -f become_systemd
mkdir "$work/space"
unshare --pid --fork --kill-child --mount --uts --ipc --cgroup bash -c become_systemd 2>"$work/why" &
outside=$!
first=
is_there() {
    first=$(pgrep -P "$outside") && grep -qs systemd "/proc/$first/comm"
}
until is_there; do
    kill -0 "$outside" 2>/dev/null && sleep 0.05 && continue
    cat "$work/why"
    [ -e "$work/mounted" ] && { echo "FAILED  systemd was not started"; exit 1; }
    echo "skipped: this needs a kernel that lets root mount another root"
    exit 0
done
trap 'kill -KILL "$first"; finish' EXIT
within() { nsenter --target "$first" --pid --mount "$@"; }
await within systemctl is-active sysinit.target
within systemctl start systemd-journald.service
said() { within journalctl --no-pager --output cat --unit dotproxy.service; }
check_said() { check_soon "$1" "$2" said; } # what, pattern
shown() { within systemctl show --value --property "$1" "${2:-dotproxy.service}"; }
ask() { dig +tries=1 +time=30 "$@"; }


# Prints the fenced block of deploy/README.md with this line among its first two, and this text.
block() { # line, [text]
    awk -v wanted="$1" -v part="${2:-}" '
        /^```/ {
            if (found && index(text, part)) exit
            text = ""; line = found = 0; inside = !inside; next
        }
        inside { text = text $0 "\n"; if (++line <= 2 && $0 == wanted) found = 1 }
        END { if (!found) exit 1; printf "%s", text }' deploy/README.md
}
# Runs the commands of the block that begins with this one.
run_block() { # command, [text]
    { echo 'sudo() { "$@"; }; set -e'; block "$@" || echo false; } | within sh -c 'cd /run/checkout && sh' 2>&1
}
# Installs the block that has the path of its file as a comment.
install_block() { # path, [text]
    block "# $1" "${2:-}" | within sh -c "mkdir -p '$(dirname "$1")' && cat >'$1'"
}
# Replaces the upstream in the options file.
use_test_upstream() {
    within sed -i '/^upstream/d' /etc/dotproxy/dotproxy.conf
    printf '%s\n' 'upstream = 127.0.0.1' 'ca-file = /etc/dotproxy-ca.pem' |
        within sh -c 'cat >>/etc/dotproxy/dotproxy.conf'
}
set_options() { # option...
    printf '%s\n' "$@" | within sh -c 'cat >/etc/dotproxy/dotproxy.conf'
    use_test_upstream
}
use_recipe() { # text of its options
    install_block /etc/dotproxy/dotproxy.conf "$1"
    use_test_upstream
}
stop_units() {
    within systemctl stop --quiet dotproxy.socket dotproxy.service
    within systemctl reset-failed --quiet dotproxy.socket dotproxy.service
}
# Occupies a UDP port with another program. `kill "$holder"` ends it.
occupy() { # address, port
    launch "$work/holder.log" python3 -c 'import socket, sys, time
address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]
holder = socket.socket(address[0], socket.SOCK_DGRAM)
holder.bind(address[4])
time.sleep(600)' "$1" "$2"
    holder=$launched
    await has_socket "$1" "$2"
}
has_socket() { ss -Hlnu "sport = :$2" | grep -qF "$1"; }

check "install: the commands of deploy/README.md" 'upstream = 9' \
    run_block 'sudo install target/release/dotproxy /usr/bin/'
check "install: the service has the options" '^active$' within systemctl is-active dotproxy.service
use_test_upstream
within systemctl restart dotproxy.service
check "service: it notifies readiness" '^active$' within systemctl is-active dotproxy.service
check_said "service: it has the sockets of systemd" 'listening on \[::1\]:53$'
for server in 127.0.0.1 ::1; do
    check "service: UDP to $server" '192\.0\.2\.80' ask "@$server" www.example.net A +notcp
    check "service: TCP to $server" '192\.0\.2\.80' ask "@$server" www.example.net A +tcp
done
process() { within cat "/proc/$(shown MainPID)/status"; }
check "service: it has a dynamic user" '^Uid:\s+(6[0-9]{4})\s+\1\s+\1\s' process
check "service: no capability is left" '^CapEff:\s+0{16}$' process
check "service: it is confined" '^Seccomp:\s+2' process
check_said "service: it confines itself, too" 'capabilities dropped, no_new_privs set; TCP only to port 853'

# Reloading valid and invalid options, in a file that is replaced by rename.
before=$(shown MainPID)
within sed -i '1i upstream = 127.0.0.1,domain=corp.example' /etc/dotproxy/dotproxy.conf
check "reload: valid options" '^$' within systemctl reload dotproxy.service
check_said "reload: they take effect" 'will be queried for names in corp\.example'
within sed -i '1i no-such-option = 1' /etc/dotproxy/dotproxy.conf
fails() { if "$@"; then return 1; fi; }
check "reload: invalid options make systemctl fail" 'Job for dotproxy.service failed' \
    fails within systemctl reload dotproxy.service
check_said "reload: the journal has the reason" 'dotproxy\.conf:[0-9]+: "no-such-option'
check "reload: it continues with the old options" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A
check "reload: it is the same process" "^$before\$" shown MainPID
check "reload: the service is still active" '^active$' within systemctl is-active dotproxy.service
within sed -i '/no-such-option/d' /etc/dotproxy/dotproxy.conf
check "reload: corrected options" '^$' within systemctl reload dotproxy.service

# Restarts while clients send queries.
for number in $(seq 2000); do echo "host$number.many.example.net A"; done >"$work/names"
load() { # seconds
    dnsperf -s 127.0.0.1 -d "$work/names" -c 8 -Q 500 -l "$1" -t 30 >"$work/dnsperf.out" 2>&1
}
load 6 &
running=$!
for _ in 1 2 3; do
    sleep 1
    within systemctl restart dotproxy.service
done
wait "$running"
check "service, 3 restarts under 500 queries/s: none lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
check "service: all were answered" 'NOERROR [0-9]+ \(100' cat "$work/dnsperf.out"

is_answered() { dig +tries=1 +time=2 "@$1" www.example.net A >"$work/answer"; }

# New addresses of the socket unit while both units are active.
network=192.168.1.1
ip address add "$network/32" dev lo
install_block /etc/systemd/system/dotproxy.socket.d/override.conf
within systemctl daemon-reload
units_are_active() { [ "$(within systemctl is-active dotproxy.socket dotproxy.service | sort -u)" = active ]; }
restart_active() { # unit...
    within systemctl start --quiet dotproxy.socket dotproxy.service
    check "new addresses, restart $*: succeeds" '^$' within systemctl restart "$@"
    check "new addresses, restart $*: both units are active" '^$' becomes units_are_active
    check "new addresses, restart $*: the service has the sockets" '192\.0\.2\.80' \
        ask "@$network" www.example.net A +notcp
}
restart_active dotproxy.socket
restart_active dotproxy.socket dotproxy.service
restart_active dotproxy.socket
within rm /etc/systemd/system/dotproxy.socket.d/override.conf
within systemctl daemon-reload
check "former addresses: restart of the socket unit" '^$' within systemctl restart dotproxy.socket
check "former addresses: the service has no other" '^$' fails is_answered "$network"
ip address delete "$network/32" dev lo

# Recovery from a kill and from a hang.
goes_on() { # signal
    local before
    before=$(shown MainPID)
    # Process 0 would be the process group of this script.
    [ "$before" != 0 ] || return
    within kill "-$1" "$before"
    # shellcheck disable=SC2317 # await calls it
    restarted() { [ "$(shown MainPID)" != "$before" ] && within systemctl is-active dotproxy.service; }
    becomes restarted
    ask @127.0.0.1 "$1.many.example.net" A
}
check "service: recovers from a kill" '192\.0\.2\.1$' goes_on KILL
check "service: recovers from a hang" '192\.0\.2\.1$' goes_on STOP
check "service: the watchdog detected the hang" '^2$' shown NRestarts
within systemctl stop dotproxy.socket dotproxy.service
check "service: it ends successfully" '^success$' shown Result
check "service: it is inactive afterwards" '^inactive$' shown ActiveState


# An address that an interface gets later.
later=192.0.2.77
late() { # unit...
    check "later address, $1: it starts" '^$' within systemctl start "$@"
    check "later address, $1: the service is active before" '^active$' within systemctl is-active dotproxy.service
    ip address add "$later/32" dev lo
    check "later address, $1: UDP" '192\.0\.2\.80' ask "@$later" www.example.net A +notcp
    check "later address, $1: TCP" '192\.0\.2\.80' ask "@$later" www.example.net A +tcp
    ip address delete "$later/32" dev lo
    stop_units
}
set_options "listen = $later" 'allow = 192.0.2.0/24'
late dotproxy.service
within mkdir -p /etc/systemd/system/dotproxy.socket.d
printf '[Socket]\nListenDatagram=%s:53\nListenStream=%s:53\n' "$later" "$later" |
    within sh -c 'cat >/etc/systemd/system/dotproxy.socket.d/later.conf'
within systemctl daemon-reload
late dotproxy.socket dotproxy.service
within rm /etc/systemd/system/dotproxy.socket.d/later.conf
within systemctl daemon-reload

# A port that another program has for a while.
set_options 'listen = 127.0.0.1'
occupy 127.0.0.1 53
within systemctl start --no-block dotproxy.service
restarted_often() { [ "$(shown NRestarts)" -ge 7 ]; }
check "taken port: restarts have no limit" '^$' becomes restarted_often
kill "$holder"
check_soon "taken port: the service starts once the port is free" '^active$' within systemctl is-active dotproxy.service
check "taken port: it answers" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A
stop_units

# A failed socket unit: the service has only the address of the options.
block 'sudo install target/release/dotproxy /usr/bin/' | sed -n "s/^printf '\(.*\)' | .*/printf '\1'/p" >"$work/print"
within sh <"$work/print" >"$work/documented.conf"
occupy ::1 53
for options in "$work/documented.conf" deploy/debian/dotproxy.conf; do
    within sh -c 'cat >/etc/dotproxy/dotproxy.conf' <"$options"
    use_test_upstream
    within sed -i '/^listen *= *::1$/d' /etc/dotproxy/dotproxy.conf
    check "failed socket unit, $(basename "$options"): it fails" 'Job failed|See' \
        fails within systemctl start dotproxy.socket
    within systemctl start dotproxy.service
    check "failed socket unit, $(basename "$options"): no other address" '^127\.0\.0\.1:53 $' \
        bash -c "ss -Hlnut 'sport = :53' | awk '{ print \$5 }' | grep -vF '[::1]:53' | sort -u | tr '\n' ' '"
    check "failed socket unit, $(basename "$options"): it answers" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A
    stop_units
done
kill "$holder"

# A host without IPv6.
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
within sh -c 'cat >/etc/dotproxy/dotproxy.conf' <deploy/debian/dotproxy.conf
use_test_upstream
without_ipv6() { # unit...
    check "no IPv6, $1: it starts" '^$' within systemctl start "$@"
    check "no IPv6, $1: the service is active" '^active$' within systemctl is-active dotproxy.service
    check "no IPv6, $1: UDP" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A +notcp
    check "no IPv6, $1: TCP" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A +tcp
    stop_units
}
without_ipv6 dotproxy.service
without_ipv6 dotproxy.socket dotproxy.service
echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6

# A query log, and its rotation.
stop_units
use_recipe query-log
check "query log: the units start" '^$' within systemctl start dotproxy.socket dotproxy.service
ask @127.0.0.1 www.example.net A >"$work/answer"
check_soon "query log: it has the query" '"www\.example\.net' within cat /var/log/dotproxy/queries.json
install_block /etc/logrotate.d/dotproxy
check "query log: logrotate accepts its file" '^$' within logrotate --force /etc/logrotate.d/dotproxy
check "query log: it was renamed" '"www\.example\.net' within cat /var/log/dotproxy/queries.json.1
reopened() { within test -e /var/log/dotproxy/queries.json; }
check "query log: the reload opens a new one" '^$' becomes reopened
ask @127.0.0.1 later.many.example.net A >"$work/answer"
check_soon "query log: later queries are in the new one" '"later\.many' within cat /var/log/dotproxy/queries.json
stop_units

# A query log in a folder that the unit closes.
set_options 'query-log = /var/log/dns.json'
check "query log, closed folder: the service does not start" 'Job for dotproxy.service failed' \
    fails within systemctl start dotproxy.service
check_said "query log, closed folder: the message names those of the unit" \
    '"/var/log/dns\.json": Read-only file system .*/var/log/dotproxy'
stop_units

# A private key that only root can read, and the hooks of ACME clients.
live=/etc/letsencrypt/live/dns.example.net
new_certificate() { # folder
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=dns.example.net \
        -keyout "$work/privkey.pem" -out "$work/dns.csr" 2>/dev/null
    openssl x509 -req -in "$work/dns.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 1 \
        -set_serial "0x$(openssl rand -hex 8)" -out "$work/fullchain.pem" \
        -extfile <(echo subjectAltName=DNS:dns.example.net) 2>/dev/null
    within install -d -m 700 "$1"
    for name in privkey fullchain; do
        within sh -c "umask 077; cat >'$1/$name.pem'" <"$work/$name.pem"
    done
}
served() { # prints the serial number of the certificate for DoT clients
    timeout 10 openssl s_client -connect 127.0.0.1:853 -servername dns.example.net </dev/null 2>/dev/null |
        openssl x509 -noout -serial
}
serial() { openssl x509 -noout -serial <"$work/fullchain.pem"; }
# The resolver of the test moves away from port 853.
resolver_port=$(free_port)
start_resolver "$resolver_port"
new_certificate "$live"
# The recipe is for a host on which both units are active.
within systemctl start --quiet dotproxy.socket dotproxy.service
install_block /etc/systemd/system/dotproxy.service.d/tls.conf
install_block /etc/systemd/system/dotproxy.socket.d/tls.conf
use_recipe tls-key
within sed -i "s/^upstream.*/&:$resolver_port/" /etc/dotproxy/dotproxy.conf
check "private key: the commands of deploy/README.md" '^$' run_block 'sudo systemctl daemon-reload' dotproxy.socket
check "private key: the service is active" '^active$' within systemctl is-active dotproxy.service
check "private key: only root can read it" '^600 root$' within stat --printf '%a %U' "$live/privkey.pem"
check "private key: DoT clients get its certificate" "^$(serial)\$" served
check "private key: DoT clients get answers" '192\.0\.2\.80' \
    kdig "@127.0.0.1" +tls +tls-ca="$work/ca.pem" +tls-hostname=dns.example.net www.example.net A
check "private key: systemctl reload works" '^$' within systemctl reload dotproxy.service
# The socket unit and `tls-listen` have different addresses.
within cp /etc/dotproxy/dotproxy.conf /run/tls.conf
within sed -i '/^tls-/d; /^https-/d' /etc/dotproxy/dotproxy.conf
check "DoT port without tls-listen: the service starts" '^$' within systemctl restart dotproxy.service
check_said "DoT port without tls-listen: a warning" '"0\.0\.0\.0:853" serves plain DNS on the port of DNS over TLS'
within cp /run/tls.conf /etc/dotproxy/dotproxy.conf
within sed -i 's/^tls-listen.*/tls-listen = 127.0.0.1/' /etc/dotproxy/dotproxy.conf
check "DoT port with another tls-listen: the service does not start" 'Job for dotproxy.service failed' \
    fails within systemctl restart dotproxy.service
check_said "DoT port with another tls-listen: the message names the socket of the program" \
    '127\.0\.0\.1:853 .*this program inherited a socket at 0\.0\.0\.0:853'
within cp /run/tls.conf /etc/dotproxy/dotproxy.conf
within systemctl reset-failed --quiet dotproxy.socket dotproxy.service
within systemctl restart dotproxy.socket dotproxy.service
hook=/etc/letsencrypt/renewal-hooks/deploy/dotproxy
install_block "$hook"
block "# $hook" >"$work/hook"
check "certbot: shellcheck has no warning about its hook" '^$' shellcheck "$work/hook"
new_certificate "$live"
check "certbot: its hook ignores other certificates" '^$' within env RENEWED_LINEAGE=/other sh "$hook"
check "certbot: its hook succeeds" 'are valid' within env RENEWED_LINEAGE="$live" sh "$hook"
check "certbot: DoT clients get the new certificate" "^$(serial)\$" served
before=$(shown MainPID)
within sh -c "echo none >$live/privkey.pem"
check "certbot: its hook refuses an invalid key" 'tls-key' \
    fails within env RENEWED_LINEAGE="$live" sh "$hook"
check "certbot: the service continues" "^$before\$" shown MainPID
# shellcheck disable=SC2088 # a comment of the block, not a path
hook='~/.acme.sh/deploy/dns_over_tls.sh'
block "# $hook" >"$work/hook"
check "acme.sh: shellcheck has no warning about its hook" '^$' shellcheck "$work/hook"
within sed -i "s|$live|/etc/dotproxy/tls|" /etc/systemd/system/dotproxy.service.d/tls.conf
within systemctl daemon-reload
new_certificate /run/acme
{
    block "# $hook"
    echo dns_over_tls_deploy dns.example.net /run/acme/privkey.pem - - /run/acme/fullchain.pem
} >"$work/hook"
check "acme.sh: its hook succeeds" 'are valid' within sh -s <"$work/hook"
check "acme.sh: DoT clients get the new certificate" "^$(serial)\$" served
within rm /etc/systemd/system/dotproxy.{service,socket}.d/tls.conf
within systemctl daemon-reload
stop_units
start_resolver 853

# A dnstap reader.
install_block /etc/systemd/system/dnstap.service
use_recipe dnstap
check "dnstap: the commands of deploy/README.md" '^Created symlink' run_block 'sudo systemctl daemon-reload' dnstap.service
check_said "dnstap: the program connects to the reader" 'dnstap.*connected'
ask @127.0.0.1 www.example.net A >"$work/answer"
within systemctl stop dotproxy.service dnstap.service
within cat /var/log/dnstap/dotproxy.tap >"$work/tap"
check "dnstap: the reader has the messages" 'CLIENT_QUERY|CQ .*www\.example\.net' dnstap-ldns -r "$work/tap"
check "dnstap: other users cannot read them" '^700 ' within stat --printf '%a ' /var/log/private
stop_units

# Several processes on one port.
set_options 'listen = 127.0.0.1'
check "several processes: the commands of deploy/README.md" 'Creating user .?dotproxy' \
    run_block 'sudo systemctl disable --now dotproxy.socket dotproxy.service'
for number in 1 2; do
    check "process $number of several: ready" '^active$' within systemctl is-active "dotproxy@$number.service"
done
load 6 &
running=$!
for number in 1 2 1; do
    sleep 1
    within systemctl restart "dotproxy@$number.service"
done
wait "$running"
hook=/etc/letsencrypt/renewal-hooks/deploy/dotproxy-user
install_block "$hook"
block "# $hook" >"$work/hook"
check "certbot, --user: shellcheck has no warning about its hook" '^$' shellcheck "$work/hook"
new_certificate "$live"
check "certbot, --user: its hook succeeds" '^$' within env RENEWED_LINEAGE="$live" sh "$hook"
check "certbot, --user: the user can read the key" '^640 root dotproxy$' \
    within stat --printf '%a %U %G' /etc/dotproxy/tls/privkey.pem
check "several processes, 3 restarts under 500 queries/s: none lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
check "several processes: all were answered" 'NOERROR [0-9]+ \(100' cat "$work/dnsperf.out"
within systemctl stop dotproxy@1.service dotproxy@2.service
check "several processes: each ends successfully" '^success$' shown Result dotproxy@2.service

# The Debian package, in place of the units in /etc.
within sh -c 'rm -rf /etc/systemd/system/*dotproxy* /etc/systemd/system/*/dotproxy* /etc/sysusers.d/dotproxy.conf \
    /etc/dotproxy /usr/bin/dotproxy /etc/letsencrypt /etc/logrotate.d/dotproxy \
    /var/log/private/dnstap; systemctl daemon-reload'
# The policy of a container image would prevent the package from stopping units.
within rm -f /usr/sbin/policy-rc.d
for version in 0.1.0-1 0.1.0-2; do
    scripts/build_deb.py --binary "$binary" --version "$version" --output "$work/$version.deb" >"$work/built"
    within sh -c "cat >/run/$version.deb" <"$work/$version.deb"
done
check "Debian: installs" 'Setting up dotproxy \(0\.1\.0-1\)' within dpkg -i /run/0.1.0-1.deb
states() { within systemctl "$1" dotproxy.socket dotproxy.service | tr '\n' ' '; }
# Prints the links of the installed documents to documents, figures and examples that are not in the
# package. Two documents are about files that only the repository has.
missing_links() {
    within python3 - <<'PYTHON'
import pathlib, re
root = pathlib.Path("/usr/share/doc/dotproxy")
installed = re.compile(r"\.md$|(^|/)(examples|figures|prometheus|grafana)(/|$)")
for document in sorted({root / "README.md", *root.rglob("*.md")}):
    for link in re.findall(r"\]\(([^)#:]+)", document.read_text()):
        if re.search("/(openwrt|helm)/", link) or not installed.search(link):
            continue
        if not (document.parent / link).exists():
            print(f"{document}: {link}")
PYTHON
}
check "Debian: links between its documents work" '^$' missing_links
check "Debian: no unit is active" '^inactive inactive $' states is-active
check "Debian: no unit is enabled" '^disabled disabled $' states is-enabled
check "Debian: it has a user" '^dotproxy:' within getent passwd dotproxy
use_test_upstream
within systemctl enable --now --quiet dotproxy.socket dotproxy.service
check "Debian: it answers" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A
before=$(shown MainPID)
check "Debian: upgrades" 'Setting up dotproxy \(0\.1\.0-2\)' within dpkg -i /run/0.1.0-2.deb
check "Debian: the upgrade restarts the service" '^$' fails [ "$before" = "$(shown MainPID)" ]
check "Debian: the upgrade keeps the options" '^ca-file' within cat /etc/dotproxy/dotproxy.conf
check "Debian: it answers after the upgrade" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A
check "Debian: it is removed" 'Removing dotproxy' within dpkg --remove dotproxy
check "Debian: the removal stops the service" '^$' fails within pgrep -x dotproxy
check "Debian: it is purged" 'Purging configuration files' within dpkg --purge dotproxy
check "Debian: the purge leaves no file" '^none$' within sh -c \
    'find /etc /usr/bin /usr/lib /var/lib /var/log -name "*dotproxy*" ! -name dotproxy-ca.pem | grep . || echo none'

within journalctl --no-pager --output cat >"$work/dotproxy.log"
conclude
