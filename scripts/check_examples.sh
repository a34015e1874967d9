#!/bin/sh
# Checks the configuration files in docs/examples: those of dotproxy with --check-conf, those of
# other programs with their own checkers, and that docs/migrating.md contains the text of each file.
# CoreDNS, AdGuard dnsproxy and systemd-resolved have no checker in Debian.
#
#   scripts/check_examples.sh [DOTPROXY]
set -u
cd "$(dirname "$0")/.." || exit 2
binary=${1:-target/release/dotproxy}
document=docs/migrating.md
PATH="$PATH:/usr/sbin:/sbin"

for tool in "$binary" dnsmasq stubby unbound-checkconf; do
    command -v "$tool" >/dev/null && continue
    echo "$tool is missing: build the program and run scripts/install_test_deps.sh" >&2
    exit 2
done

failed=0
fail() { # message, details
    echo "$1"
    [ -z "$2" ] || echo "$2" | sed 's/^/    /'
    failed=1
}

# Prints the block of the document that follows the link to a file.
block() { # name of the file
    awk -v link="](examples/$1)" '
        is_in && /^```/ { exit }
        is_in { print }
        is_next && /^```/ { is_in = 1 }
        index($0, link) { is_next = 1 }
    ' "$document"
}

# Checks a file with the program that reads it.
check() { # path
    case $1 in
        *.dotproxy.conf) "$binary" -C "$1" --check-conf ;;
        */dnsmasq*.conf) dnsmasq --test -C "$1" ;;
        */stubby.yml) stubby -C "$1" -i ;;
        */unbound.conf) unbound-checkconf "$1" ;;
        */Corefile | */dnsproxy.yaml | */resolved*.conf) ;;
        *) echo "no checker is known for this file" && false ;;
    esac
}

count=0
for path in docs/examples/*; do
    count=$((count + 1))
    output=$(check "$path" 2>&1) || fail "$path: invalid" "$output"
    case $output in *warning:*) fail "$path: has a warning" "$output" ;; esac
    difference=$(block "$(basename "$path")" | diff - "$path") ||
        fail "$path: $document has another text" "$difference"
done
missing=$(sed -n 's/.*](examples\/\([^)]*\)).*/\1/p' "$document" | while read -r name; do
    [ -f "docs/examples/$name" ] || echo "docs/examples/$name"
done)
[ -z "$missing" ] || fail "$document names files that do not exist:" "$missing"
[ "$failed" -eq 0 ] && echo "$count example files are valid and in $document"
exit "$failed"
