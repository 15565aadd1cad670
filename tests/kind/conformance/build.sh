#!/usr/bin/env bash
# Build the Gateway API's mesh conformance suite and the image of its pods, into a folder of the cache that is named by
# the content of everything they are made from.
#
#   build.sh           builds unless it is there; prints the folder
#
# Invariant: the folder exists exactly when it is complete (it is renamed into place at the end).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${AMBIT_CACHE:-$HOME/.cache/ambit}/conformance
# The name and the tag that the suite's own manifests ask for.
readonly IMAGE=registry.k8s.io/gateway-api/echo-advanced:v1.5.1
readonly ECHO=istio.io/istio/pkg/test/echo/cmd
readonly DAYS=3650
command -v go >/dev/null || { echo "error: no go: install the Go toolchain that tests/kind/go.mod names" >&2; exit 1; }
# The flags of ../build.sh, so that packages which both need are compiled once.
export GOFLAGS='-mod=readonly -buildvcs=false -trimpath -gcflags=all=-dwarf=false' CGO_ENABLED=0
cd "$here/.."
hash=$( { go version; cat go.mod go.sum conformance/build.sh conformance/*.go ../../images/mkimage.py; } | sha256sum | cut -c1-16)
out=$cache/$hash
if [ -d "$out" ]; then echo "$out"; exit 0; fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/unfinished.XXXXXX")
trap 'rm -rf "$work"' EXIT

# quietly CMD...: its output only when it fails; addresses of module proxies may hold credentials
quietly() {
  "$@" > "$work/log" 2>&1 || { sed -E 's#(https?|ftp)://[^ "]*#<address>#g' "$work/log" >&2; exit 1; }
}

echo "building the Gateway API's mesh conformance suite" >&2
quietly go test -c -ldflags='-s -w' -o "$work/mesh.test" ./conformance
echo "building its echo image" >&2
mkdir -p "$work/root/usr/local/bin"
quietly go build -ldflags='-s -w' -o "$work/root/usr/local/bin/" $ECHO/client $ECHO/server
# The manifests name these two files. Nobody verifies the certificate.
quietly openssl req -x509 -newkey rsa:2048 -nodes -days $DAYS -subj /CN=echo -keyout "$work/root/cert.key" -out "$work/root/cert.crt"
chmod 644 "$work/root/cert.key"
quietly python3 ../../images/mkimage.py $IMAGE "$work/echo.tar" "$work/root" --entrypoint /usr/local/bin/server
rm -rf "$work/root" "$work/log"
chmod 755 "$work"
mv -T "$work" "$out" 2>/dev/null || [ -d "$out" ]            # another clone may have been first
echo "$out"
