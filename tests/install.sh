#!/usr/bin/env bash
# Installs the operator from config/install.yaml and waits until both replicas are ready.
set -euo pipefail
cd "$(dirname "$0")/.."
kubectl=${KUBECTL:-kubectl}
generation() { "$kubectl" -n ambit-system get deployment ambit-operator -o 'jsonpath={.metadata.generation}' 2>/dev/null || true; }
before=$(generation)
echo "installing the operator into ambit-system"
"$kubectl" apply --server-side --force-conflicts -f config/install.yaml >/dev/null
# Istio's own policy kinds: left alone where they are there already.
for crd in crds/security.istio.io.*.yaml; do
  "$kubectl" create -f "$crd" >/dev/null 2>&1 || "$kubectl" get -f "$crd" >/dev/null
done
"$kubectl" wait --for=condition=Established crd/meshes.ambit.dev --timeout=30s >/dev/null
# The same image name may hold a newer program. A changed manifest is being rolled out already.
[ "$(generation)" != "$before" ] || "$kubectl" -n ambit-system rollout restart deployment/ambit-operator >/dev/null
"$kubectl" -n ambit-system rollout status deployment/ambit-operator --timeout=180s
for part in ambit-node-agent ztunnel; do
  if "$kubectl" -n ambit-system get daemonset "$part" >/dev/null 2>&1; then
    "$kubectl" -n ambit-system rollout restart "daemonset/$part" >/dev/null
    "$kubectl" -n ambit-system rollout status "daemonset/$part" --timeout=180s
  fi
done
