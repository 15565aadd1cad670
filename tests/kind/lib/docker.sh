# shellcheck shell=bash
# The same cluster through kind, where a Docker engine answers: one control plane and $NODES workers.

kind_cli() { go -C "$KIND_DIR" tool kind "$@"; }

kind_up() {
  mkdir -p "$STATE"
  if kind_cli get clusters 2>/dev/null | grep -qx "$CLUSTER"; then
    kind_cli export kubeconfig --name "$CLUSTER" --kubeconfig "$ADMIN" --quiet
    step "kind cluster $CLUSTER is already running"
  else
    { printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n'
      for _ in $(seq "$NODES"); do echo '- role: worker'; done; } |
      kind_cli create cluster --name "$CLUSTER" --kubeconfig "$ADMIN" --wait "${READY_WAIT_S}s" --config -
    step "kind cluster $CLUSTER is up"
  fi
}

kind_down() {
  kind_cli delete cluster --name "$CLUSTER"
  rm -rf "$STATE"
  rm -f "$ADMIN"
}
