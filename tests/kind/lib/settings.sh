# shellcheck shell=bash
# Names, paths and addresses of one cluster.
#
# Invariant: whatever exists on the machine because of cluster C is named C.<part> (network namespaces, cgroups), C-h
# (the host's link) or lies below the state directory. So remains are found by name, without the state of whoever left them.
#
# From the environment: CLUSTER (name), NODES (how many), IDX (0..9, picks the subnets), AMBIT_CACHE (built binaries).
# The readers of this file use what it sets, which shellcheck cannot see:
# shellcheck disable=SC2034

KIND_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPO=$(cd "$KIND_DIR/../.." && pwd)
readonly KIND_DIR REPO
readonly CLUSTER=${CLUSTER:-ambit}
readonly STATE=$REPO/.cluster/$CLUSTER
readonly PKI=$STATE/pki
if [ "$CLUSTER" = ambit ]; then ADMIN=$REPO/.cluster/admin.kubeconfig; else ADMIN=$STATE/admin.kubeconfig; fi
readonly ADMIN
readonly CACHE=${AMBIT_CACHE:-$HOME/.cache/ambit}
# One for the machine, because names and subnets are.
readonly LOCK=/run/lock/ambit-kind.lock
readonly LOCK_WAIT_S=300
readonly READY_WAIT_S=120
readonly HEALTH_WAIT_S=20

readonly T0=$EPOCHREALTIME

# seconds_since START (as of EPOCHREALTIME), with one decimal
seconds_since() { awk -v a="$EPOCHREALTIME" -v b="$1" 'BEGIN { printf "%.1f", a - b }'; }
step() { printf '%6ss  %s\n' "$(seconds_since "$T0")" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The interface name <cluster>-h has at most 15 characters, and a dot would let one cluster's names begin another's.
[[ $CLUSTER =~ ^[a-z0-9]([a-z0-9-]{0,11}[a-z0-9])?$ ]] || die "CLUSTER=$CLUSTER: use 1 to 13 of a-z, 0-9 and - (not first or last)"

# load_settings: take IDX and NODES from the cluster's state; 1 when it has none
load_settings() {
  [ -r "$STATE/settings" ] || return 1
  # shellcheck source=/dev/null
  . "$STATE/settings"
  use_settings "$IDX" "$NODES"
}

# use_settings IDX NODES: derive every address
use_settings() {
  IDX=$1 NODES=$2
  [[ $IDX =~ ^[0-9]$ ]] || die "IDX=$IDX: must be 0 to 9"
  [[ $NODES =~ ^[1-9]$ ]] || die "NODES=$NODES: must be 1 to 9"
  LAN=10.$((89 + IDX)).0
  CP_IP=$LAN.1
  HOST_IP=$LAN.254
  POD_CIDR=10.$((189 + IDX)).0.0/16
  SVC_CIDR=10.$((100 + IDX)).0.0/16
  SVC_API=10.$((100 + IDX)).0.1
  SVC_DNS=10.$((100 + IDX)).0.10
}

node_ip() { echo "$LAN.$((10 + $1))"; }
pod_cidr() { echo "10.$((189 + IDX)).$1.0/24"; }
node_names() { local i; for i in $(seq "$NODES"); do echo "node$i"; done; }

# binaries: the folder that build.sh filled
binaries() { BIN=$("$KIND_DIR/build.sh" --where)/bin; [ -d "$BIN" ] || die "the cluster's binaries are not built: run tests/kind/build.sh"; }
kc() { "$BIN/kubectl" --kubeconfig "$ADMIN" "$@"; }

# lock: hold the machine's lock until this script ends (the parts are started without the descriptor)
lock() {
  mkdir -p "${LOCK%/*}"
  exec 9>"$LOCK"
  flock -n 9 && return
  step "waiting for another up or down to finish"
  flock -w "$LOCK_WAIT_S" 9 || die "another up or down has held $LOCK for $LOCK_WAIT_S s"
}

# docker_engine: does a Docker engine answer here
docker_engine() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }
