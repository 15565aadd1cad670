# shellcheck shell=bash
# The network: a bridge in the control plane's namespace, one veth to each node, one to the host.
#
# Invariant: the host gets one link and routes over it, nothing else; all of it goes away with the link and the namespaces.

netns_of() { ip netns exec "$CLUSTER.$1" "${@:2}"; }

index_is_free() { ! ip -4 -o addr show | grep -qF " 10.$((89 + $1)).0."; }

# choose_index: IDX as asked for, else the first that no cluster of this machine uses
choose_index() {
  local i first=1
  if [ -n "${IDX:-}" ]; then
    index_is_free "$IDX" || die "IDX=$IDX: 10.$((89 + IDX)).0.0/24 is in use on this machine"
    echo "$IDX"
    return
  fi
  [ "$CLUSTER" != ambit ] || first=0
  for i in $(seq "$first" 9); do
    if index_is_free "$i"; then echo "$i"; return; fi
  done
  die "every subnet from IDX=$first to 9 is in use: take a cluster down"
}

control_plane_network() {
  ip netns add "$CLUSTER.cp"
  netns_of cp ip link set lo up
  netns_of cp ip link add br0 type bridge
  netns_of cp ip addr add "$CP_IP/24" dev br0
  netns_of cp ip link set br0 up
  ip link add "$CLUSTER-h" type veth peer name host netns "$CLUSTER.cp"
  netns_of cp ip link set host master br0 up
  ip addr add "$HOST_IP/24" dev "$CLUSTER-h"
  ip link set "$CLUSTER-h" up
}

# node_network I: the namespace of node I, its link, and the routes to the other nodes' pods
node_network() {
  local i=$1 node=node$1 j
  ip netns add "$CLUSTER.$node"
  netns_of "$node" ip link set lo up
  ip link add "$node" netns "$CLUSTER.cp" type veth peer name eth0 netns "$CLUSTER.$node"
  netns_of cp ip link set "$node" master br0 up
  netns_of "$node" ip addr add "$(node_ip "$i")/24" dev eth0
  netns_of "$node" ip link set eth0 up
  netns_of "$node" ip route add default via "$CP_IP"          # kubelet and kube-proxy want one
  for j in $(seq "$NODES"); do
    [ "$i" = "$j" ] || netns_of "$node" ip route add "$(pod_cidr "$j")" via "$(node_ip "$j")"
  done
  netns_of cp ip route replace "$(pod_cidr "$i")" via "$(node_ip "$i")"      # webhooks and aggregated APIs are in pods
  ip route replace "$(pod_cidr "$i")" via "$(node_ip "$i")" dev "$CLUSTER-h" # so that the host may look at pods
}

remove_network() {
  local name
  ip link del "$CLUSTER-h" 2>/dev/null || true
  for name in /run/netns/"$CLUSTER".*; do
    if [ -e "$name" ]; then ip netns del "${name##*/}" 2>/dev/null || rm -f "$name"; fi
  done
}

network_remains() {
  ip -o link show 2>/dev/null | awk -F': ' -v n="$CLUSTER-h" '{ sub(/@.*/, "", $2) } $2 == n { print "link " n }'
  find /run/netns -maxdepth 1 -name "$CLUSTER.*" -printf 'network namespace %f\n' 2>/dev/null || true
}
