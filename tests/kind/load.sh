#!/usr/bin/env bash
# Load image archives into every node of the cluster that KUBECONFIG names (else of CLUSTER), without a registry.
#
#   [KUBECONFIG=file | CLUSTER=name] load.sh IMAGE.tar...
#
# Invariant: an archive counts as loaded when every node has it; one that a node has already is imported again, which replaces it for new pods.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
context=
if [ -n "${KUBECONFIG:-}" ]; then
  context=$(sed -n 's/^current-context: *//p' "$KUBECONFIG")
  case $context in
    nodes-*) export CLUSTER=${context#nodes-} ;;
    kind-*) export CLUSTER=${context#kind-} ;;
    *) echo "error: $KUBECONFIG is of another kind of cluster ($context): push the images to a registry it can pull from" >&2; exit 1 ;;
  esac
fi
for lib in settings parts docker; do
  # shellcheck source=/dev/null
  . "$here/lib/$lib.sh"
done
[ $# -gt 0 ] || die "which archives?"
if [[ $context = kind-* ]] || { [ -z "$context" ] && docker_engine; }; then
  for archive in "$@"; do kind_cli load image-archive --name "$CLUSTER" "$(realpath "$archive")"; done
  exit
fi
binaries

# load_into NODE ARCHIVE...; containerd's advice on the host's cgroups is not about the archive
load_into() {
  local archive
  for archive in "${@:2}"; do inside "$1" ctr -n k8s.io images import --local --digests=false - < "$archive" 2> >(grep -v DEPRECATION >&2) >/dev/null; done
}

mapfile -t nodes < <(part_cgroups 'node*' | sed 's/.*\.//' | sort -u)
[ ${#nodes[@]} -gt 0 ] || die "cluster $CLUSTER is not running"
jobs=()
for node in "${nodes[@]}"; do
  load_into "$node" "$@" &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job" || die "an image did not load"; done
step "$# images into ${nodes[*]}"
