#!/usr/bin/env bash
# Start the test cluster, or find that it runs already. Writes .cluster/admin.kubeconfig (.cluster/<name>/ for another name).
#
#   [CLUSTER=name] [NODES=2] [IDX=0..9] up.sh
#
# Invariant: it ends with success only when every node and CoreDNS are ready.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for lib in settings parts network remains pki node-config docker; do
  # shellcheck source=/dev/null
  . "$here/lib/$lib.sh"
done

# healthy: do the API server, every node and CoreDNS answer
healthy() {
  kc get --raw /readyz --request-timeout=3s >/dev/null 2>&1 &&
    kc wait --for=condition=Ready node --all --timeout="${HEALTH_WAIT_S}s" >/dev/null 2>&1 &&
    [ "$(kc get node --no-headers 2>/dev/null | wc -l)" = "$NODES" ] &&
    kc -n kube-system rollout status deploy/coredns --timeout="${HEALTH_WAIT_S}s" >/dev/null 2>&1
}

# parts_running: is there an unshare for the control plane and each node
parts_running() { [ "$(part_unshares '*' | wc -l)" = $((NODES + 1)) ]; }

# found_running: say so when the cluster runs already; refuse to touch one that belongs to another clone
found_running() {
  local running_from wanted=${NODES:-}
  running_from=$(owner)
  if [ -n "$running_from" ] && [ "$running_from" != "$STATE" ] && [ -d "$running_from" ]; then
    die "cluster $CLUSTER runs already, from ${running_from%/.cluster/*}: take it down there, or choose another name with CLUSTER="
  fi
  [ -n "$running_from" ] && load_settings || return 1
  [ -z "$wanted" ] || [ "$wanted" = "$NODES" ] || die "cluster $CLUSTER runs with NODES=$NODES: take it down first, or leave NODES unset"
  parts_running && healthy || return 1
  step "cluster $CLUSTER is already running: KUBECONFIG=$ADMIN"
}

start_all() {
  local i
  mkdir -p "$PKI"
  chmod 700 "$STATE"
  printf 'IDX=%s NODES=%s\n' "$IDX" "$NODES" > "$STATE/settings"
  : > "$STATE/resolv.conf"                                   # pods with dnsPolicy Default get no name server
  control_plane_network
  for i in $(seq "$NODES"); do node_network "$i"; done
  step "network 10.$((89 + IDX)).0.0/24, pods $POD_CIDR, services $SVC_CIDR"
  (umask 077; make_pki)
  for i in $(seq "$NODES"); do write_node_config "$i"; done
  step "certificates and settings"
  start cp "$here/lib/control-plane.sh"
  for i in $(seq "$NODES"); do start "node$i" "$here/lib/node.sh"; done
  leave_root_groups
}

# pressures: pressure conditions of nodes, such as a full disk
pressures() {
  kc get nodes -o jsonpath='{range .items[*].status.conditions[?(@.status=="True")]}{.type}: {.message}{"\n"}{end}' 2>/dev/null |
    grep -v '^Ready: ' | sort -u
}

# wait_for WHAT CMD...
wait_for() {
  local what=$1 deadline=$((SECONDS + READY_WAIT_S))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || die "$what: not within $READY_WAIT_S s; $(pressures)
the logs are in $STATE/*/log"
    sleep 0.2
  done
  step "$what"
}

# Created here instead of by the kubelets, so that node I always has pod network I.
make_nodes() {
  local i
  for i in $(seq "$NODES"); do
    printf '{"apiVersion":"v1","kind":"Node","metadata":{"name":"node%s"},"spec":{"podCIDR":"%s","podCIDRs":["%s"]}}\n' "$i" "$(pod_cidr "$i")" "$(pod_cidr "$i")"
  done | kc create -f - >/dev/null
  touch "$STATE/nodes-made"
}

[ "$(id -u)" = 0 ] || die "needs root: the nodes are namespaces of this machine"
if docker_engine; then
  NODES=${NODES:-2}
  kind_up
  exit
fi
"$here/build.sh"
binaries
lock
mkdir -p "$REPO/.cluster"
if found_running; then exit 0; fi
left=$(remains)
if [ -n "$left" ]; then
  remove_all
  step "removed what was left of an earlier cluster $CLUSTER"
fi
idx=$(choose_index)
use_settings "$idx" "${NODES:-2}"
start_all
wait_for "API server ready" kc get --raw /readyz
make_nodes
sed "s/@DNS@/$SVC_DNS/" "$here/lib/coredns.yaml" | kc apply -f - >/dev/null
wait_for "$NODES nodes ready" kc wait --for=condition=Ready node --all --timeout=5s
wait_for "CoreDNS ready" kc -n kube-system rollout status deploy/coredns --timeout=5s
wait_for "default service account" kc get serviceaccount default
step "cluster $CLUSTER is up: KUBECONFIG=$ADMIN"
