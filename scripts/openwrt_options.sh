#!/bin/sh
# Prints the options file that the init script of OpenWrt makes of settings of UCI, with the functions
# of OpenWrt that it needs in their simplest form.
#
#   scripts/openwrt_options.sh deploy/openwrt/files/dotproxy.config
set -eu
cd "$(dirname "$0")/.."
settings=$1

# value KIND NAME: what the settings have under this name.
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

# shellcheck source=/dev/null
. deploy/openwrt/files/dotproxy.init
write_options main
