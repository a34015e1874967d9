# shellcheck shell=bash
# Two hosts, the server here and a client on the other side of a cable: network namespaces that end with
# the script. To be sourced before anything else, in bash, at the root of the repository.

# shellcheck source=scripts/namespace.sh
. scripts/namespace.sh
need dig nsenter

# The server is here, the client on the other side of a cable.
unshare --net sleep 3600 &
client=$!
pids+=("$client")
on_client() { nsenter --target "$client" --net "$@"; }
has_left() { [ "$(readlink /proc/self/ns/net)" != "$(readlink "/proc/$client/ns/net")" ]; }
await has_left
ip link add server0 type veth peer name client0 netns "$client" &&
    ip link set server0 up && on_client ip link set client0 up || exit 2
