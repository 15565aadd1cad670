#!/usr/bin/env bash
# Make the image archives in target/images: one FROM-scratch image a program (`make build` comes first), and the test images.
#
#   images/build.sh [IMAGE...]     ambit-operator ambit-ztunnel ambit-waypoint ambit-node-agent ambit-box ambit-redis, which are all
#                                  unless named, and ambit-authz, which only the tests of external authorization need
#
# Invariant: an archive is a function of what is in it. Test images are kept in the cache by the content of their recipe.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/.." && pwd)
programs=$repo/target/x86_64-unknown-linux-gnu/release
out=$repo/target/images
cache=${AMBIT_CACHE:-$HOME/.cache/ambit}/images
# Operator and waypoints run unprivileged; the others enter network namespaces and load BPF programs.
readonly NOBODY=65532 ROOT=0
# As in tests/kind/build.sh, so that packages which both need are compiled once.
export CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false -trimpath -gcflags=all=-dwarf=false'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() { echo "error: $*" >&2; exit 1; }

# pack NAME ROOT ARGS...: write the archive of localhost/NAME:dev
pack() { python3 "$here/mkimage.py" "localhost/$1:dev" "$out/$1.tar" "${@:2}"; }

# program NAME USER BINARY...: the first binary is the entrypoint
program() {
  local name=$1 user=$2 binary
  shift 2
  mkdir -p "$work/$name"
  for binary in "$@"; do
    [ -x "$programs/$binary" ] || die "$name: $binary is not built; run 'make build' first"
    cp "$programs/$binary" "$work/$name/$binary"
  done
  pack "$name" "$work/$name" --entrypoint "/$1" --user "$user"
}

# unpack DIR PACKAGE...: Debian packages, not installed. An old package list makes the download fail, hence the second try.
unpack() {
  local dir=$1 log=$work/apt.log deb
  shift
  mkdir -p "$dir.deb" "$dir"
  (cd "$dir.deb" && { apt-get download -q "$@" || { apt-get update -q && apt-get download -q "$@"; }; }) > "$log" 2>&1 ||
    { sed -E 's#(https?|ftp)://[^ "]*#<address>#g' "$log" >&2; die "cannot download $*"; }
  for deb in "$dir.deb"/*.deb; do dpkg -x "$deb" "$dir"; done
}

# go_program FOLDER OUTPUT PACKAGE: what go prints only if it fails, without addresses of module proxies, which may hold credentials
go_program() {
  (cd "$1" && go build -ldflags='-s -w' -o "$2" "$3") > "$work/go.log" 2>&1 ||
    { sed -E 's#(https?|ftp)://[^ "]*#<address>#g' "$work/go.log" >&2; die "cannot build $3"; }
}

# box: a shell with the usual commands, and the shop
box() {
  local root=$work/box applet
  unpack "$work/busybox" busybox-static
  mkdir -p "$root/bin" "$root/etc" "$root/tmp"
  chmod 1777 "$root/tmp"
  cp "$work/busybox/bin/busybox" "$root/bin/busybox"
  for applet in $("$root/bin/busybox" --list); do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
  go_program "$repo/tests/kind" "$root/bin/shop" ./shop
  echo 'root:x:0:0::/:/bin/sh' > "$root/etc/passwd"
  pack ambit-box "$root"
}

# copy_libraries ROOT PROGRAM...: what the programs load, from ROOT's own packages before the host's
copy_libraries() {
  local root=$1 from=$2 library
  shift 2
  LD_LIBRARY_PATH=$from/usr/lib/x86_64-linux-gnu:$from/lib/x86_64-linux-gnu ldd "$@" > "$work/ldd"
  ! grep -q 'not found' "$work/ldd" || die "$(grep 'not found' "$work/ldd"): name its package in images/build.sh"
  grep -oE '/[^ :]+\.so[^ :]*' "$work/ldd" | sort -u | while read -r library; do
    if [[ $library = /lib64/* ]]; then cp -L "$library" "$root/lib64/"; else cp -L "$library" "$root/lib/"; fi
  done
}

# redis: the real server and client of Debian
redis() {
  local root=$work/redis from=$work/debian name
  unpack "$from" redis-server redis-tools libatomic1 libjemalloc2 liblzf1 libssl3 libsystemd0
  mkdir -p "$root/usr/bin" "$root/lib" "$root/lib64" "$root/tmp" "$root/etc"
  chmod 1777 "$root/tmp"
  for name in redis-server redis-cli; do cp -L "$from/usr/bin/$name" "$root/usr/bin/$name"; done
  copy_libraries "$root" "$from" "$root/usr/bin/redis-server" "$root/usr/bin/redis-cli"
  ln -s usr/bin "$root/bin"
  pack ambit-redis "$root" --entrypoint /usr/bin/redis-server
}

# authz: two providers of external authorization, oauth2-proxy (HTTP) and one made of Envoy's generated code (gRPC)
authz() {
  local root=$work/authz
  mkdir -p "$root/bin"
  go_program "$repo/tests/kind/authz" "$root/bin/oauth2-proxy" github.com/oauth2-proxy/oauth2-proxy/v7
  go_program "$repo/tests/kind/authz" "$root/bin/checker" ./checker
  pack ambit-authz "$root"
}

# cached NAME BUILD FILES...: the archive of a test image, made by BUILD unless one of the same recipe is in the cache
cached() {
  local name=$1 build=$2 kept
  shift 2
  kept=$cache/$name-$(cat "$here/build.sh" "$here/mkimage.py" "$@" <(go version) | sha256sum | cut -c1-16).tar
  if [ ! -e "$kept" ]; then
    "$build"
    mkdir -p "$cache"
    cp "$out/$name.tar" "$kept.$$"
    mv "$kept.$$" "$kept"
  fi
  cp "$kept" "$out/$name.tar"
}

image() {
  case $1 in
    ambit-operator) program ambit-operator $NOBODY ambit-operator ;;
    ambit-ztunnel) program ambit-ztunnel $ROOT ambit-ztunnel ;;
    ambit-waypoint) program ambit-waypoint $NOBODY ambit-waypoint ;;
    ambit-node-agent) program ambit-node-agent $ROOT ambit-node-agent ambit-cni-plugin ;;
    ambit-box) cached ambit-box box "$repo"/tests/kind/go.mod "$repo"/tests/kind/shop/*.go ;;
    ambit-authz) cached ambit-authz authz "$repo"/tests/kind/authz/go.{mod,sum} "$repo"/tests/kind/authz/checker/*.go ;;
    ambit-redis) cached ambit-redis redis ;;
    *) die "no image $1" ;;
  esac
}

command -v go >/dev/null || die "no go: the test images need it"
mkdir -p "$out"
[ $# -gt 0 ] || set -- ambit-operator ambit-ztunnel ambit-waypoint ambit-node-agent ambit-box ambit-redis
printf '%-32s %10s\n' IMAGE SIZE
for name in "$@"; do
  image "$name"
  printf '%-32s %6.1f MiB\n' "localhost/$name:dev" "$(stat -c %s "$out/$name.tar" | awk '{ print $1 / 1048576 }')"
done
