#!/usr/bin/env bash
# Pid 1 of a worker node: give it files, cgroups and sysctls of its own, then run containerd, kubelet and kube-proxy.
#
# Invariant: nothing here is seen outside the node. Its mount namespace is private until everything is mounted, and the
# sysctls that the kubelet sets for a whole machine are files of this node.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$0")/supervise.sh"
hostname "$PART"

# /etc, /opt and /var are copies on write of the host's; what containers live on must not be on an overlay. Nor may the
# state, which is below one of them when the clone is: it is held elsewhere meanwhile.
mount --bind "$STATE" /mnt
for dir in etc opt var; do
  mkdir -p "$DIR/overlay/$dir/upper" "$DIR/overlay/$dir/work"
  mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$DIR/overlay/$dir/upper,workdir=$DIR/overlay/$dir/work" "/$dir"
done
mount --move /mnt "$STATE"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/containerd
if [ ! /var/run -ef /run ]; then mkdir -p /var/run; mount --bind /run /var/run; fi
for dir in var/lib/kubelet var/lib/containerd var/lib/ambit var/log/pods var/log/containers etc/cni/net.d opt/cni/bin; do
  mkdir -p "$DIR/files/$dir" "/$dir"
  mount --bind "$DIR/files/$dir" "/$dir"
done
cp -f "$BIN"/cni/* /opt/cni/bin/
[ -e /etc/cni/net.d/10-cluster.conflist ] || cp "$DIR/10-cluster.conflist" /etc/cni/net.d/

# The cgroup tree as this node's own cgroup namespace shows it, laid out as the host lays it out.
mount -t sysfs sysfs /sys
if [ "$(wc -l < /proc/self/cgroup)" = 1 ]; then
  V2=/sys/fs/cgroup
  mount -t cgroup2 cgroup2 "$V2"
  mkdir -p "$V2/init.scope"
  read -ra controllers < "$V2/cgroup.controllers"
  # Controllers can be passed on once no process is left in the root group; the host moves the one that is not visible here.
  until for controller in "${controllers[@]}"; do echo "+$controller"; done > "$V2/cgroup.subtree_control" 2>/dev/null; do
    while read -r pid; do echo "$pid" > "$V2/init.scope/cgroup.procs" || true; done < "$V2/cgroup.procs"
    sleep 0.1
  done
else
  V2=/sys/fs/cgroup/unified
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  while IFS=: read -r _ controllers _; do
    case $controllers in
      '') dir=$V2 type=cgroup2 options=rw ;;
      name=*) dir=/sys/fs/cgroup/${controllers#name=} type=cgroup options=none,$controllers ;;
      *) dir=/sys/fs/cgroup/$controllers type=cgroup options=$controllers ;;
    esac
    mkdir "$dir"
    mount -t "$type" -o "$options" cgroup "$dir"
  done < /proc/self/cgroup
fi
mount -t bpf bpf /sys/fs/bpf

# The kubelet sets these for the whole machine unless it finds them as it wants them.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  name=${setting%%=*}
  file=$DIR/sysctl.${name//\//.}
  echo "${setting#*=}" > "$file"
  mount --bind "$file" "/proc/sys/$name"
done
echo 1 > /proc/sys/net/ipv4/ip_forward
mount --make-rshared /                                       # Bidirectional and HostToContainer need it

service containerd containerd --config "$DIR/containerd.toml"
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$IMAGES"/*.tar; do ctr -n k8s.io images import --local --digests=false "$image" >> "$DIR/log/images.log" 2>&1; done
until [ -e "$STATE/nodes-made" ]; do sleep 0.1; done
service kubelet kubelet --config="$DIR/kubelet.yaml" --kubeconfig="$PKI/$PART.kubeconfig" --hostname-override="$PART" --node-ip="$(cat "$DIR/ip")" --v=2
service kube-proxy kube-proxy --config="$DIR/kube-proxy.yaml"
reap
