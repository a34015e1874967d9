# shellcheck shell=bash
# Two hosts, the server here and a client at the other end of a virtual cable: network namespaces
# that end with the script. Source this file before anything else, in bash, at the root of the
# repository.

# shellcheck source=scripts/namespace.sh
. scripts/namespace.sh
need dig nsenter

# The server is in this namespace, the client at the other end of the cable.
unshare --net sleep 3600 &
client=$!
pids+=("$client")
on_client() { nsenter --target "$client" --net "$@"; }
has_left() { [ "$(readlink /proc/self/ns/net)" != "$(readlink "/proc/$client/ns/net")" ]; }
await has_left
ip link add server0 type veth peer name client0 netns "$client" &&
    ip link set server0 up && on_client ip link set client0 up || exit 2
