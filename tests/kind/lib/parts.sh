# shellcheck shell=bash
# A part (the control plane or a node) is one `unshare` with everything of the part below it, in a cgroup of its own.
#
# Invariant: ending the `unshare` ends every process of the part, and a process belongs to a part exactly when it is in the part's cgroup.

# cgroup_mounts: lines "<mount point> <group of this shell>" for each hierarchy that is mounted. A child of the shell's own group
# is used, so that whatever bounds the shell bounds the cluster. Under v2 alone the root is used, since a group with processes
# in it cannot pass controllers on.
cgroup_mounts() {
  local ctl path mount only_v2=
  [ "$(wc -l < /proc/self/cgroup)" != 1 ] || only_v2=1
  while IFS=: read -r _ ctl path; do
    mount=$(awk -v ctl="$ctl" '
      { for (i = 1; i <= NF; i++) if ($i == "-") { type = $(i + 1); opts = "," $(i + 3) "," } }
      ctl == "" && type == "cgroup2" { print $5; exit }
      ctl != "" && type == "cgroup" && index(opts, "," ctl ",") { print $5; exit }' /proc/self/mountinfo)
    [ -z "$mount" ] || echo "$mount ${only_v2:-${path%/}}" | sed 's/ 1$/ /'
  done < /proc/self/cgroup
}

# part_cgroups PATTERN: the cgroups of this cluster's parts, whoever made them
part_cgroups() {
  local mount
  cgroup_mounts | while read -r mount _; do find "$mount" -type d -name "$CLUSTER.$1" -prune 2>/dev/null || true; done
}

# part_pids PATTERN: every process in them
part_pids() {
  local group
  part_cgroups "$1" | while read -r group; do find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done | sort -nu
}

# A pod may run an unshare too; ours names the part.
is_unshare() { tr '\0' ' ' 2>/dev/null < "/proc/$1/cmdline" | grep -q '^unshare --mount --pid .* PART='; }

# part_unshares PATTERN: the `unshare` processes among them
part_unshares() {
  local pid
  for pid in $(part_pids "$1"); do if is_unshare "$pid"; then echo "$pid"; fi; done
}

# enter_cgroup PART: make the part's group in every hierarchy and move the calling shell there
enter_cgroup() {
  local mount path group file
  while read -r mount path; do
    group=$mount$path/$CLUSTER.$1
    mkdir -p "$group"
    for file in cpuset.cpus cpuset.mems; do                  # v1 refuses processes while these are empty
      if [ -e "$group/$file" ] && [ -e "$mount/$file" ]; then cat "$mount$path/$file" > "$group/$file"; fi
    done
    echo "$BASHPID" > "$group/cgroup.procs"
  done < <(cgroup_mounts)
}

# start PART SCRIPT: run SCRIPT as pid 1 of namespaces of its own, in the network namespace of the part
start() {
  local part=$1 script=$2
  mkdir -p "$STATE/$part/log"
  ( enter_cgroup "$part"
    exec setsid nsenter --net="/run/netns/$CLUSTER.$part" \
      unshare --mount --pid --uts --ipc --cgroup --fork --kill-child --propagation private --mount-proc \
      env -i PATH="$BIN:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root PART="$part" DIR="$STATE/$part" BIN="$BIN" STATE="$STATE" PKI="$PKI" \
        CP_IP="$CP_IP" SVC_CIDR="$SVC_CIDR" POD_CIDR="$POD_CIDR" IMAGES="${BIN%/bin}/images" bash "$script" ) \
      </dev/null >"$STATE/$part/log/init.log" 2>&1 9>&- &
  disown
}

# leave_root_groups: under v2 alone a group with a process in it passes no controllers on, and each unshare is in the group
# that its part sees as the root.
leave_root_groups() {
  local pid group
  [ "$(wc -l < /proc/self/cgroup)" = 1 ] || return 0
  for pid in $(part_unshares '*'); do
    group=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    [ "${group##*/}" != supervisor ] || continue
    mkdir -p "/sys/fs/cgroup$group/supervisor"
    echo "$pid" > "/sys/fs/cgroup$group/supervisor/cgroup.procs"
  done
}

# init_pid PART: pid 1 of the part as this shell sees it. The kernel is asked for the children: pgrep reads all of /proc,
# and a process that ends while it does so may be listed with the parent of the one before.
init_pid() {
  local outer child
  outer=$(part_unshares "$1" | head -n1)
  [ -n "$outer" ] || return 1
  for child in $(cat "/proc/$outer/task/$outer/children" 2>/dev/null); do
    if grep -qE '^NSpid:[[:space:]]+[0-9]+[[:space:]]+1$' "/proc/$child/status" 2>/dev/null; then echo "$child"; return; fi
  done
  return 1
}

# inside PART CMD...
inside() {
  local pid
  pid=$(init_pid "$1") || die "$1 of cluster $CLUSTER is not running"
  shift
  nsenter -t "$pid" --mount --pid --uts --ipc --net --cgroup env PATH="$BIN:/usr/sbin:/usr/bin:/sbin:/bin" "$@"
}

# stop PATTERN: end the parts and remove their cgroups
stop() {
  local pid group try
  for pid in $(part_unshares "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
  for try in $(seq 100); do
    part_cgroups "$1" | while read -r group; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
    [ -n "$(part_cgroups "$1")" ] || return 0
    # A process that left its unshare (which only a kill of pid 1 in the middle of a fork can cause) is ours by its cgroup.
    if [ "$try" = 50 ]; then for pid in $(part_pids "$1"); do kill -KILL "$pid" 2>/dev/null || true; done; fi
    sleep 0.1
  done
  die "processes $(part_pids "$1" | tr '\n' ' ')of cluster $CLUSTER do not end"
}
