#!/usr/bin/env bash
# Remove the test cluster: processes, namespaces, mounts, cgroups, files. Also if it is only partly started or removed.
#
#   [CLUSTER=name] down.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for lib in settings parts network remains docker; do
  # shellcheck source=/dev/null
  . "$here/lib/$lib.sh"
done

[ "$(id -u)" = 0 ] || die "needs root"
if docker_engine; then
  kind_down
  exit
fi
lock
running_from=$(owner)
if [ -n "$running_from" ] && [ "$running_from" != "$STATE" ] && [ -d "$running_from" ]; then
  die "cluster $CLUSTER runs from ${running_from%/.cluster/*}: take it down there"
fi
left=$(remains)
if [ -z "$left" ]; then
  step "no cluster $CLUSTER"
  exit 0
fi
remove_all
left=$(remains)
[ -z "$left" ] || die "cluster $CLUSTER left behind: $left"
step "cluster $CLUSTER is gone: no process, namespace, mount, cgroup, link or file is left"
