#!/bin/bash
# Runs the units of deploy/systemd, installed as in deploy/README.md, under a systemd that is
# process 1 of its own namespaces. Its root is that of this host, with changes that end with the
# script.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/namespace.sh
. scripts/namespace.sh
need dig dnsperf nsenter systemctl
start_unbound 853

# Runs systemd in its own namespaces, with the units installed as in deploy/README.md and its own
# journal, and without hardware management.
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

    install "$binary" "$root/usr/bin/dotproxy"
    install -m 644 deploy/systemd/dotproxy* "$root/etc/systemd/system/"
    install -m 644 "$work/ca.pem" "$root/etc/dotproxy-ca.pem"
    mkdir "$root/etc/dotproxy"
    printf '%s\n' 'upstream = 127.0.0.1' 'ca-file = /etc/dotproxy-ca.pem' >"$root/etc/dotproxy/dotproxy.conf"
    mkdir "$root/etc/systemd/system/dotproxy.service.d"
    # Short, but long enough that a slow process on a busy machine does not look like one that
    # hangs.
    printf '[Service]\nWatchdogSec=6\n' >"$root/etc/systemd/system/dotproxy.service.d/soon.conf"

    cd "$root"
    pivot_root . mnt
    umount --lazy /mnt
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

within systemctl enable --now --quiet dotproxy.socket dotproxy.service
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

# Reloading valid and invalid options.
before=$(shown MainPID)
within sh -c 'echo "upstream = 127.0.0.1,domain=corp.example" >>/etc/dotproxy/dotproxy.conf'
check "reload: valid options" '^$' within systemctl reload dotproxy.service
check_said "reload: they hold" 'will be queried for names in corp\.example'
within sh -c 'echo "no-such-option = 1" >>/etc/dotproxy/dotproxy.conf'
within systemctl reload dotproxy.service
check_said "reload: wrong options are reported" 'no-such-option'
check "reload: it continues with the old options" '192\.0\.2\.80' ask @127.0.0.1 www.example.net A
check "reload: it is the same process" "^$before\$" shown MainPID
within sed -i '/no-such-option/d' /etc/dotproxy/dotproxy.conf

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

# Recovery from a kill and from a hang.
goes_on() { # signal
    local before
    before=$(shown MainPID)
    within kill "-$1" "$before"
    # shellcheck disable=SC2317 # await calls it
    restarted() { [ "$(shown MainPID)" != "$before" ] && within systemctl is-active dotproxy.service; }
    await restarted
    ask @127.0.0.1 "$1.many.example.net" A
}
check "service: recovers from a kill" '192\.0\.2\.1$' goes_on KILL
check "service: recovers from a hang" '192\.0\.2\.1$' goes_on STOP
check "service: the watchdog detected the hang" '^2$' shown NRestarts
within systemctl stop dotproxy.socket dotproxy.service
check "service: it ends successfully" '^success$' shown Result
check "service: it is inactive afterwards" '^inactive$' shown ActiveState

# Several processes on one port.
within useradd --system dotproxy
within systemctl start dotproxy@1.service dotproxy@2.service
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
check "several processes, 3 restarts under 500 queries/s: none lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
check "several processes: all were answered" 'NOERROR [0-9]+ \(100' cat "$work/dnsperf.out"
within systemctl stop dotproxy@1.service dotproxy@2.service
check "several processes: each ends successfully" '^success$' shown Result dotproxy@2.service

within journalctl --no-pager --output cat >"$work/dotproxy.log"
conclude
