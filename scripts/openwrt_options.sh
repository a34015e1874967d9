#!/bin/sh
# Prints the options file that the init script of OpenWrt generates from UCI settings, with minimal
# versions of the OpenWrt functions that it needs.
#
#   scripts/openwrt_options.sh deploy/openwrt/files/dotproxy.config
#
# Alternatively runs the start of the service up to procd, with another program, folder and user, as
# root, and prints the commands for procd:
#
#   scripts/openwrt_options.sh deploy/openwrt/files/dotproxy.config start /usr/bin/dotproxy /var/run/test daemon
set -eu
cd "$(dirname "$0")/.."
settings=$1

# value KIND NAME: prints the setting with this name.
value() {
    sed -n "s/^[[:space:]]*$1 $2 '\(.*\)'\$/\1/p" "$settings"
}
config_get() { # variable, section, option
    eval "$1=\$(value option $3)"
}
config_get_bool() { # variable, section, option, default
    eval "$1=\$(value option $3); : \"\${$1:=$4}\""
}
config_list_foreach() { # section, list, function
    value list "$2" | while read -r item; do "$3" "$item"; done
}

config_load() { :; }
config_foreach() { # function
    "$1" main
}
logger() {
    echo "$*" >&2
}
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_set_param() {
    echo "$*"
}

# shellcheck source=/dev/null
. deploy/openwrt/files/dotproxy.init
if [ "${2:-}" = start ]; then
    # shellcheck disable=SC2034 # the init script reads these
    PROG=$3 RUNTIME_DIR=$4 STATE_DIR=$4/state RUNTIME_USER=$5
    start_service
else
    write_options main
fi
