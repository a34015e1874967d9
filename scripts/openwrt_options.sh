#!/bin/sh
# Runs an action of the init script of OpenWrt with UCI settings from a file, up to procd, with minimal
# versions of the OpenWrt functions that it needs. Prints the log lines and what procd does: start,
# restart, signal or stop an instance, or nothing if it is unchanged. The folder keeps the generated
# options files and the state of procd for the next action.
#
#   scripts/openwrt_options.sh SETTINGS start|reload PROGRAM FOLDER USER
set -eu
cd "$(dirname "$0")/.."
settings=$1 action=$2 folder=$4 user=$5
program=$3
procd=$folder.procd
mkdir -p "$procd"

# The rest of the OpenWrt functions does not run with `set -e` or `set -u`, either.
set +eu

# Only root can change owners.
[ "$(id -u)" = 0 ] || chown() { :; }
logger() { # -t tag -p priority message
    echo "log $4 $5"
}

# UCI: the settings are shell commands, as in /lib/config/uci.sh.
config() {
    CONFIG_SECTION=$2
    config_cb "$1" "$2"
}
option() {
    option_cb "$1" "$2"
}
list() {
    list_cb "$1" "$2"
}
config_load() {
    CONFIG_SECTION=''
    # shellcheck source=/dev/null
    . "$settings"
    ${CONFIG_SECTION:+config_cb}
}

# procd: an instance whose parameters have changed gets the reload signal, or is restarted if it has
# none (instance_update in procd's service/instance.c).
procd_open_instance() {
    instance=$1 reload_signal=''
    : >"$procd/$instance.new"
}
procd_set_param() {
    case $1 in reload_signal) reload_signal=$2 ;; esac
    echo "$*" >>"$procd/$instance.new"
    case $1 in file) cksum "$2" >>"$procd/$instance.new" ;; esac
}
procd_close_instance() {
    if [ ! -e "$procd/$instance" ]; then
        echo "start $instance: $(sed -n 's/^command //p' "$procd/$instance.new")"
    elif ! cmp -s "$procd/$instance" "$procd/$instance.new"; then
        if [ -n "$reload_signal" ]; then
            echo "signal $instance $reload_signal"
        else
            echo "restart $instance: $(sed -n 's/^command //p' "$procd/$instance.new")"
        fi
    fi
}
procd_send_signal() { # service, instance, signal
    echo "signal $2 $3"
}
start() {
    start_service
    for instance in "$procd"/*; do
        case $instance in *.new | *'*') continue ;; esac
        [ -e "$instance.new" ] || { echo "stop $(basename "$instance")"; rm "$instance"; }
    done
    for instance in "$procd"/*.new; do
        [ ! -e "$instance" ] || mv "$instance" "${instance%.new}"
    done
}

# shellcheck source=/dev/null
. deploy/openwrt/files/dotproxy.init
# shellcheck disable=SC2034 # the init script reads these
PROG=$program RUNTIME_DIR=$folder STATE_DIR=$folder/state RUNTIME_USER=$user
case $action in
    reload) if command -v reload_service >/dev/null; then reload_service; else start; fi ;;
    *) start ;;
esac
