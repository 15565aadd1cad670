# shellcheck shell=bash
# What a cluster has on this machine, and how to take it away. Needs settings.sh, parts.sh, network.sh.

mounts_below() { awk -v dir="$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo; }

# remains: one line for each thing that is there by this cluster's name
remains() {
  local group
  part_cgroups '*' | while read -r group; do echo "cgroup $group"; done
  network_remains
  mounts_below "$STATE" | sed 's/^/mount /'
  [ ! -e "$STATE" ] || echo "state $STATE"
}

# owner: the state folder of the processes that run under this cluster's name, if any
owner() {
  local pid
  pid=$(part_unshares '*' | head -n1)
  [ -z "$pid" ] || tr '\0' '\n' 2>/dev/null < "/proc/$pid/cmdline" | sed -n 's/^STATE=//p'
}

# remove_all: end, unmount and delete everything
remove_all() {
  local path
  stop '*'
  remove_network
  mounts_below "$STATE" | sort -r | while read -r path; do umount "$path" || die "cannot unmount $path"; done
  rm -rf --one-file-system "$STATE"
  rm -f "$ADMIN"
}
