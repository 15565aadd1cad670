#!/usr/bin/env bash
# Install the Gateway API's CRDs of the version that go.mod names, where the cluster has none. Of the experimental channel, a
# superset of the standard one: only there an HTTPRoute has retries and session persistence.
#
#   [KUBECONFIG=file] [KUBECTL=program] gateway-api.sh
#
# Invariant: CRDs that are there already are left alone, whoever installed them and of whatever version.
set -euo pipefail
cd "$(dirname "$0")"
kubectl=${KUBECTL:-./kubectl}
readonly ESTABLISHED_WAIT=60s
if "$kubectl" get crd gateways.gateway.networking.k8s.io >/dev/null 2>&1; then exit 0; fi
export GOFLAGS=-mod=readonly
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Addresses of module proxies may hold credentials.
go mod download sigs.k8s.io/gateway-api 2> "$log" || { sed -E 's#(https?|ftp)://[^ "]*#<address>#g' "$log" >&2; exit 1; }
from=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
echo "installing the Gateway API $(go list -m -f '{{.Version}}' sigs.k8s.io/gateway-api)"
"$kubectl" apply --server-side -o name -k "$from/config/crd/experimental" | grep ^customresourcedefinition |
  xargs "$kubectl" wait --for=condition=Established --timeout=$ESTABLISHED_WAIT >/dev/null
