#!/bin/bash
# Checks the home network of the README, as copied, with a router and a client: two resolvers and a
# fallback, local names, a block list, DoT and DoH, the status page, and a restart. The public
# resolvers and the local DNS server are unbound at their addresses, in a network namespace.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/network.sh
. scripts/network.sh
need kdig curl
if ! setpriv --reuid daemon --regid daemon --clear-groups true 2>/dev/null; then
    echo "skipped all checks: the program changes to another user, which needs root"
    exit 0
fi

set -e
ip address add 192.168.1.1/24 dev server0
ip address add 192.168.1.254/32 dev lo
for address in 9.9.9.9 149.112.112.112 1.1.1.1; do ip address add "$address/32" dev lo; done
on_client ip address add 192.168.1.9/24 dev client0
on_client ip link set lo up
set +e

# The options file of the README, with other folders, and the authority of this test.
etc=$work/etc
mkdir "$etc" "$work/state"
chmod 755 "$work" "$etc"
chown daemon "$work/state"
awk '/^# \/etc\/dotproxy\/dotproxy.conf$/ { block = "" } { block = block $0 "\n" }
    /^```$/ { if (block ~ /^# \/etc.*blocked-names/) { sub(/```\n$/, "", block); printf "%s", block; exit } }' README.md |
    sed "s|/etc/dotproxy/|$etc/|; s|/var/lib/dotproxy/|$work/state/|" >"$etc/dotproxy.conf"
check "the README has the options file" 'blocked-names' cat "$etc/dotproxy.conf"
echo "ca-file = $etc/ca.pem" >>"$etc/dotproxy.conf"
printf '192.168.1.20 printer.lan printer\nfd00::20 printer.lan\n' >"$etc/hosts"
printf 'ads.example\n*.tracker.example\n' >"$etc/blocked-names"

certificate() { # file, subject alternative names
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$work/$1.key" \
        -out "$work/$1.csr"
    openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.key.pem" -CAkey "$work/ca.key" -CAcreateserial \
        -days 60 -out "$work/$1.pem" -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$2")
}
{
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \
        -subj "/CN=home test authority" -keyout "$work/ca.key" -out "$work/ca.key.pem" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
    certificate quad9 DNS:dns.quad9.net
    certificate cloudflare IP:1.1.1.1
    certificate home DNS:dns.home.example,IP:192.168.1.1
} 2>/dev/null
cp "$work/ca.key.pem" "$etc/ca.pem"
cp "$work/home.pem" "$etc/fullchain.pem"
cp "$work/home.key" "$etc/privkey.pem"
chown -R daemon "$etc"
# Only root may write the options file and its folder.
chown root "$etc" "$etc/dotproxy.conf"
chmod 400 "$etc/privkey.pem"

resolver() { # label, address of www.example, settings
    local label=$1 answer=$2
    shift 2
    {
        echo "server:"
        unbound_defaults
        printf '    %s\n' "logfile: \"$work/$label.log\"" "num-threads: 1" "access-control: 0.0.0.0/0 allow" \
            'module-config: "iterator"' 'local-zone: "." redirect' "local-data: \". 300 IN A $answer\"" "$@"
        printf 'remote-control:\n    control-enable: no\n'
    } >"$work/$label.conf"
    unbound -d -c "$work/$label.conf" &
    resolver=$!
    pids+=("$resolver")
}
over_tls() { printf '%s\n' "tls-port: 853" "tls-service-key: \"$work/$1.key\"" "tls-service-pem: \"$work/$1.pem\""; }
mapfile -t quad9 < <(over_tls quad9)
mapfile -t cloudflare < <(over_tls cloudflare)
resolver quad9 192.0.2.9 "${quad9[@]}" "interface: 9.9.9.9@853" "interface: 149.112.112.112@853"
quad9_pid=$resolver
resolver cloudflare 192.0.2.1 "${cloudflare[@]}" "interface: 1.1.1.1@853"
cloudflare_pid=$resolver
resolver local 192.168.1.30 "interface: 192.168.1.254@53" "log-queries: yes" \
    'local-zone: "home.arpa." redirect' 'local-data: "home.arpa. 300 IN A 192.168.1.30"'

# Otherwise the fallback would answer the first queries.
listens() { (exec 3<>"/dev/tcp/$1/$2"); }
for address in 9.9.9.9 149.112.112.112 1.1.1.1; do await listens "$address" 853; done
await listens 192.168.1.254 53

router() { launch "$work/dotproxy.log" "$binary" -C "$etc/dotproxy.conf" --user daemon; }
ask() { on_client dig @192.168.1.1 +tries=1 +time=30 "$@"; }
short() { ask +short "$@"; }
page() { on_client curl --silent --show-error --max-time 30 --compressed "http://192.168.1.1:9153$1"; }

check "the options are valid" 'options and files are valid' "$binary" -C "$etc/dotproxy.conf" --user daemon --check-conf
router
await short www.example
check_soon "a public name" '^192\.0\.2\.9$' short www.example
check "a local name is asked of the local server" '^192\.168\.1\.30$' short nas.home.arpa
check "a name of the hosts file" '^192\.168\.1\.20$' short printer.lan
check "its IPv6 address" '^fd00::20$' short printer.lan AAAA
check "its address backwards" '^printer\.lan\.$' short -x 192.168.1.20
check "a blocked name" 'status: NXDOMAIN' ask ads.example
check "the reason" 'EDE: 15 \(Blocked\)' ask x.tracker.example
check "DoT" 'status: NOERROR' on_client kdig @192.168.1.1 +tls-ca="$etc/ca.pem" \
    +tls-hostname=dns.home.example www.example
check "DoH" '^192\.0\.2\.9$' on_client dig @192.168.1.1 +https +short +tls-ca="$etc/ca.pem" \
    +tls-hostname=dns.home.example www.example
check "phones learn of DoT and DoH" 'dns\.home\.example.*alpn="(dot|h2)"' short _dns.resolver.arpa SVCB
check "the status page" '<title>dotproxy</title>' page /
check "its data" '"blocked":2' page /status.json
asked_locally() { grep -oE '192\.168\.1\.[0-9]+ \S+ A IN' "$work/local.log" | cut -d ' ' -f 2 | sort -u | tr '\n' ' '; }
check "only local names are asked in clear text" '^nas\.home\.arpa\. $' asked_locally

kill "$quad9_pid"
wait "$quad9_pid" 2>/dev/null
check_soon "the fallback answers while the resolvers fail" '^192\.0\.2\.1$' short fallback.example
check_soon "the log tells so" 'in use as the fallback' cat "$work/dotproxy.log"

kill "$launched"
wait "$launched" 2>/dev/null
check "the cache is written" '[1-9][0-9]* entr(y|ies) written' cat "$work/dotproxy.log"
kill "$cloudflare_pid"
wait "$cloudflare_pid" 2>/dev/null
router
await grep -q 'restored .* entries' "$work/dotproxy.log"
check_soon "after a restart without any resolver, known names are answered" '^192\.0\.2\.9$' short www.example
check "the cache file is private" '^600 daemon$' stat -c '%a %U' "$work/state/cache"

conclude
