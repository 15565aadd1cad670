# shellcheck shell=bash
# Keys, certificates and kubeconfigs of the cluster, below $PKI, readable by root only.

readonly CERT_DAYS=3650

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$1.key"; }

# authority FILE NAME
authority() {
  key "$1"
  openssl req -x509 -new -key "$PKI/$1.key" -subj "/CN=$2" -days "$CERT_DAYS" -out "$PKI/$1.crt" 2>/dev/null
}

# certificate FILE SUBJECT [SAN] [AUTHORITY]
certificate() {
  local file=$PKI/$1 authority=$PKI/${4:-ca}
  key "$1"
  openssl req -new -key "$file.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days "$CERT_DAYS" -out "$file.crt" \
      -extfile <(printf 'keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n'; [ -z "${3:-}" ] || echo "subjectAltName=$3") 2>/dev/null
}

# kubeconfig FILE OUT: for the holder of certificate FILE; the context's name says which cluster it is (load.sh reads it)
kubeconfig() {
  cat > "$2" <<Y
apiVersion: v1
kind: Config
clusters: [{name: $CLUSTER, cluster: {server: "https://$CP_IP:6443", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}}]
contexts: [{name: nodes-$CLUSTER, context: {cluster: $CLUSTER, user: $1}}]
current-context: nodes-$CLUSTER
Y
}

make_pki() {
  local i name
  authority ca kubernetes-ca
  authority front-ca front-proxy-ca
  key sa
  openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver "IP:$CP_IP,IP:$SVC_API,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate front-proxy-client /CN=front-proxy-client "" front-ca
  certificate admin /O=system:masters/CN=admin
  kubeconfig admin "$ADMIN"
  for name in controller-manager scheduler proxy; do
    certificate "$name" "/CN=system:kube-$name"
    kubeconfig "$name" "$PKI/$name.kubeconfig"
  done
  for i in $(seq "$NODES"); do
    certificate "node$i" "/O=system:nodes/CN=system:node:node$i" "IP:$(node_ip "$i"),DNS:node$i"
    kubeconfig "node$i" "$PKI/node$i.kubeconfig"
  done
}
