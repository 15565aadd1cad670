#!/usr/bin/env bash
# Build the programs of the test cluster into a cache folder named by a hash of all inputs.
#
#   build.sh           builds unless it is there
#   build.sh --where   prints the folder
#
# Invariant: the folder exists exactly when it is complete (it is renamed into place at the end), so any number of clones may share it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${AMBIT_CACHE:-$HOME/.cache/ambit}/cluster
command -v go >/dev/null || { echo "error: no go: install the Go toolchain that tests/kind/go.mod names" >&2; exit 1; }
# Nobody debugs these programs: without DWARF the compiler has a fifth less to do. It collects its garbage seldom, as it soon ends.
export GOFLAGS='-mod=readonly -buildvcs=false -trimpath -gcflags=all=-dwarf=false' GOGC=400
readonly PROGRESS_S=20
cd "$here"
hash=$( { go version; cat go.mod go.sum build.sh coredns/main.go pause/pause.c ../../images/mkimage.py; } | sha256sum | cut -c1-16)
out=$cache/$hash
if [ "${1:-}" = --where ]; then echo "$out"; exit 0; fi

# timed WHAT CMD...: run CMD, one line with how long it took; its output only when it fails. A command that takes longer
# than PROGRESS_S says how far it is: `go build -v` writes a line for each package that it compiles.
# It runs as a job because `set -e` does not hold inside the condition of an if.
timed() {
  local what=$1 start=$EPOCHREALTIME log job
  shift
  log=$(mktemp)
  ( "$@" ) > "$log" 2>&1 &
  job=$!
  until timeout "$PROGRESS_S" tail --pid="$job" -f /dev/null; do
    printf '%6ss  %s: %s packages compiled\n' "$(seconds_since "$start")" "$what" "$(wc -l < "$log")"
  done
  if ! wait "$job"; then
    # Addresses of module proxies and mirrors may hold credentials.
    sed -E 's#(https?|ftp)://[^ "]*#<address>#g' "$log" >&2
    echo "error: $what failed" >&2
    rm -f "$log"
    exit 1
  fi
  rm -f "$log"
  printf '%6ss  %s\n' "$(seconds_since "$start")" "$what"
}

seconds_since() { awk -v a="$EPOCHREALTIME" -v b="$1" 'BEGIN { printf "%.1f", a - b }'; }

# Commands the cluster needs, with the Debian package of each.
missing_packages() {
  local pair
  for pair in ip:iproute2 iptables:iptables nft:nftables openssl:openssl nsenter:util-linux unshare:util-linux flock:util-linux \
    python3:python3 gcc:gcc pkg-config:pkg-config; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
  done | sort -u
}

install_packages() {
  [ "$(id -u)" = 0 ] || { echo "needs root to install: $*"; return 1; }
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# Debian packages that are only unpacked; an old package list makes the download fail, hence the second try.
unpack_packages() {
  mkdir -p "$work/deb" && cd "$work/deb"
  apt-get download -q libseccomp-dev libseccomp2 || { apt-get update -q && apt-get download -q libseccomp-dev libseccomp2; }
  local deb
  for deb in ./*.deb; do dpkg -x "$deb" .; done
}

# program OUTPUT LDFLAGS PACKAGE...
program() { CGO_ENABLED=0 go build -v -ldflags="-s -w $2" -o "$work/$1" "${@:3}"; }

# Without these flags the nodes report a version that says nothing.
kubernetes_flags() {
  local version minor package
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' -X %s' "$package.gitVersion=$version" "$package.gitMajor=1" "$package.gitMinor=${minor%%.*}" "$package.gitTreeState=clean"
  done
}

# runc needs cgo, and libseccomp: containerd gives every sandbox a seccomp profile, which a runc without it refuses.
# Go keeps what pkg-config said without looking at it again, and this folder is another each time: hence CGO_LDFLAGS.
runc() {
  local libraries=$work/deb/usr/lib/x86_64-linux-gnu
  PKG_CONFIG_PATH="$libraries/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$work/deb" CGO_LDFLAGS="-O2 -g -L$libraries" CGO_ENABLED=1 \
    go build -v -tags 'seccomp netgo osusergo' -ldflags='-s -w -extldflags=-static' -o "$work/bin/runc" github.com/opencontainers/runc
}

images() {
  mkdir -p "$work/pause" "$work/images"
  gcc -Os -static -s -o "$work/pause/pause" pause/pause.c
  python3 ../../images/mkimage.py localhost/pause:1 "$work/images/pause.tar" "$work/pause" --entrypoint /pause
  python3 ../../images/mkimage.py localhost/coredns:1 "$work/images/coredns.tar" "$work/dns" --entrypoint /coredns
}

mapfile -t packages < <(missing_packages)
[ ${#packages[@]} = 0 ] || timed "install ${packages[*]}" install_packages "${packages[@]}"
if [ -d "$out" ]; then echo "cluster binaries are built ($hash)"; exit 0; fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/unfinished.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin/cni" "$work/dns"
kubernetes=k8s.io/kubernetes/cmd containerd=github.com/containerd/containerd/v2 plugins=github.com/containernetworking/plugins/plugins
timed "Go modules" go mod download
timed "libseccomp" unpack_packages
# One build of all, so that no core waits for the last package of one program before it begins the next program.
timed "Kubernetes, etcd, containerd" program bin/ \
  "$(kubernetes_flags) -X $containerd/version.Version=$(go list -m -f '{{.Version}}' $containerd)" \
  $kubernetes/{kube-apiserver,kubelet,kube-controller-manager,kube-scheduler,kube-proxy,kubectl} go.etcd.io/etcd/server/v3 \
  $containerd/cmd/{containerd,containerd-shim-runc-v2,ctr}
mv "$work/bin/server" "$work/bin/etcd"
timed "runc" runc
timed "CNI plugins" program bin/cni/ "" $plugins/main/ptp $plugins/ipam/host-local $plugins/main/loopback $plugins/meta/portmap
timed "CoreDNS" program dns/coredns "" ./coredns
timed "pause and CoreDNS images" images
rm -rf "$work/deb" "$work/dns" "$work/pause"
chmod 755 "$work"
mv -T "$work" "$out" 2>/dev/null || [ -d "$out" ]            # another clone may have been first
