#!/usr/bin/env bash
# Look into a running test cluster.
#
#   ctl.sh kubectl ARGS...      the cluster's own kubectl, as administrator
#   ctl.sh in PART CMD...       run CMD inside cp, node1, node2, ... (in all of its namespaces)
#   ctl.sh restart NODE         like a reboot: all processes, /run and bpffs are lost, the disk stays
#   ctl.sh logs PART            where the logs of its daemons are
#   ctl.sh memory               what each part uses
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for lib in settings parts network docker; do
  # shellcheck source=/dev/null
  . "$here/lib/$lib.sh"
done

usage() { sed -n '4,8s/^# *//p' "$0" >&2; exit 2; }

# enter PART CMD...
enter() {
  [ $# -ge 2 ] || usage
  if docker_engine; then exec docker exec -i "$@"; fi
  binaries
  inside "$@"
}

restart() {
  local node=${1:-}
  [[ $node =~ ^node[1-9]$ ]] || usage
  ! docker_engine || { docker restart "$node"; return; }
  binaries
  load_settings || die "no cluster $CLUSTER"
  lock
  stop "$node"
  netns_of cp ip link del "$node" 2>/dev/null || true
  ip netns del "$CLUSTER.$node"
  node_network "${node#node}"
  start "$node" "$here/lib/node.sh"
  leave_root_groups
  step "$node starts again"
}

memory() {
  local part group
  load_settings || die "no cluster $CLUSTER"
  for part in cp $(node_names); do
    group=$(part_cgroups "$part" | grep /memory/ | head -n1)
    [ -n "$group" ] || continue
    printf '%-6s %5d MiB of its own, %5d MiB with page cache\n' "$part" \
      $(($(awk '/^total_rss /{ print $2 }' "$group/memory.stat") / 1048576)) $(($(cat "$group/memory.usage_in_bytes") / 1048576))
  done
}

case ${1:-} in
  kubectl) binaries; exec "$BIN/kubectl" --kubeconfig "$ADMIN" "${@:2}" ;;
  in) enter "${@:2}" ;;
  restart) restart "${@:2}" ;;
  logs) ls "$STATE/${2:?PART}/log/"*.log ;;
  memory) memory ;;
  *) usage ;;
esac
