#!/bin/sh
# Prints the line for dnsmasq.conf that announces a resolver for DNS over TLS and DNS over HTTPS by DHCPv4
# (DNR, RFC 9463, section 5.1). The listeners have their default ports, 853 and 443.
#
#   dnr_option.sh NAME ADDRESS    NAME: a name in the certificate; ADDRESS: an IPv4 address
set -euf

[ $# -eq 2 ] || {
    sed -n '2,5s/^# *//p' "$0" >&2
    exit 2
}
name=${1%.}
address=$2

# Prints numbers as bytes in hexadecimal.
bytes() { printf '%02x ' "$@"; }
text() { printf '%s' "$1" | od -An -v -tx1 | tr '\n' ' '; }
# Prints the number of bytes in a list, in two bytes.
length16() { bytes $(($# / 256)) $(($# % 256)); }

domain() {
    old=$IFS
    IFS=.
    # shellcheck disable=SC2086 # the labels of the name
    set -- $1
    IFS=$old
    [ $# -gt 0 ] && [ ${#name} -le 253 ] || return 1
    for label; do
        case $label in '' | -* | *[!A-Za-z0-9-]*) return 1 ;; esac
        [ ${#label} -le 63 ] || return 1
        bytes ${#label}
        text "$label"
    done
    bytes 0
}

ipv4() {
    old=$IFS
    IFS=.
    # shellcheck disable=SC2086 # the numbers of the address
    set -- $1
    IFS=$old
    [ $# -eq 4 ] || return 1
    for number; do
        case $number in '' | *[!0-9]* | ????* | 0?*) return 1 ;; esac
        [ "$number" -le 255 ] || return 1
    done
    bytes "$@"
}

encoded_name=$(domain "$name") || {
    echo "$name: expected a host name, like dns.home.example" >&2
    exit 2
}
encoded_address=$(ipv4 "$address") || {
    echo "$address: expected an IPv4 address, like 192.168.1.1" >&2
    exit 2
}
alpn="$(bytes 3)$(text dot)$(bytes 2)$(text h2)"
path=$(text '/dns-query{?dns}')
# shellcheck disable=SC2086 # lists of bytes
set -- $encoded_name
name_len=$#
# shellcheck disable=SC2046,SC2086 # lists of bytes
set -- $(bytes 0 1) $(bytes $name_len) $encoded_name $(bytes 4) $encoded_address \
    $(bytes 0 1) $(length16 $alpn) $alpn $(bytes 0 7) $(length16 $path) $path
# shellcheck disable=SC2046 # lists of bytes
set -- $(length16 "$@") "$@"
(IFS=: && echo "dhcp-option=162,$*")
