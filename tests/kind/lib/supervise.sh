# shellcheck shell=bash
# For pid 1 of a part: keep its daemons running.
#
# Invariant: a daemon of a node runs in the v2 cgroup /system.slice/<name>.service, as under systemd, so pods are never below it.

# service NAME CMD...: run CMD with its log in $DIR/log/NAME.log, again whenever it ends
service() {
  local name=$1
  shift
  ( set +e
    if [ -n "${V2:-}" ]; then
      mkdir -p "$V2/system.slice/$name.service"
      echo "$BASHPID" > "$V2/system.slice/$name.service/cgroup.procs"
    fi
    while :; do
      "$@" >>"$DIR/log/$name.log" 2>&1
      echo "$name ended with status $?; starting it again" >&2
      sleep 1
    done ) &
}

# reap: bash as pid 1 collects what is reparented to it
reap() { while :; do wait || true; sleep 1; done; }
