#!/usr/bin/env bash
# Pid 1 of the control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$0")/supervise.sh"
hostname cp

service etcd etcd --name=cp --data-dir="$DIR/etcd" --unsafe-no-fsync --log-level=warn \
  --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380

# Aggregator routing dials webhooks at pod addresses, since no kube-proxy runs here.
service apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
  --bind-address="$CP_IP" --advertise-address="$CP_IP" --secure-port=6443 --service-cluster-ip-range="$SVC_CIDR" \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true --enable-aggregator-routing=true --profiling=false \
  --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --kubelet-client-certificate="$PKI/apiserver-kubelet.crt" --kubelet-client-key="$PKI/apiserver-kubelet.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
  --requestheader-client-ca-file="$PKI/front-ca.crt" --requestheader-allowed-names=front-proxy-client \
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key"

# Started before the API server has its default roles, the controller manager backs off and loses seconds.
until kubectl --kubeconfig="$PKI/controller-manager.kubeconfig" get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done

# credentials NAME: the flags that these two have in common. With the default rate limit the first
# seconds go by in asking for one token for each controller.
credentials() {
  printf '%s\n' "--kubeconfig=$PKI/$1.kubeconfig" "--authentication-kubeconfig=$PKI/$1.kubeconfig" "--authorization-kubeconfig=$PKI/$1.kubeconfig" \
    --bind-address=127.0.0.1 --leader-elect=false --kube-api-qps=200 --kube-api-burst=400 --profiling=false
}
mapfile -t flags < <(credentials controller-manager)
service controller-manager kube-controller-manager "${flags[@]}" --use-service-account-credentials=true --root-ca-file="$PKI/ca.crt" \
  --service-account-private-key-file="$PKI/sa.key" --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
  --requestheader-client-ca-file="$PKI/front-ca.crt" --service-cluster-ip-range="$SVC_CIDR" --cluster-cidr="$POD_CIDR" --flex-volume-plugin-dir="$DIR/volumeplugins"
mapfile -t flags < <(credentials scheduler)
service scheduler kube-scheduler "${flags[@]}"
reap
