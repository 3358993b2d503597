#!/bin/bash
# node.sh DIR: the first process of a one-node Kubernetes that lives in namespaces of its own (process
# ids, mounts, network). When this process dies, the kernel ends all others and takes the mounts along.
# DIR holds what node.rs wrote: pki/, kubeconfig, *.toml, *.yaml; logs go to DIR/log/.
set -eu
dir=$1; bin=$2; name=$(basename "$dir"); address=10.244.0.1
# The id of this process as those outside see it: /proc still is theirs.
cut -d' ' -f4 /proc/self/stat >"$dir/pid/init"
mount -t proc proc /proc
mount --make-rshared /
mkdir -p /run/netns
for folder in /run/netns /var/log; do mount -t tmpfs tmpfs "$folder"; done
start() { local log=$1; shift; "$@" </dev/null >"$dir/log/$log" 2>&1 & }
until_ok() { until "$@" >/dev/null 2>&1; do sleep 0.05; done; }

# The kubelet refuses a loopback address for its node: the bridge's address is the node's.
ip link set lo up
ip link add cni0 type bridge
ip addr add $address/24 dev cni0
ip link set cni0 up
ip route add default via $address
echo 1 >/proc/sys/net/ipv4/ip_forward

# A control group of its own, so that what pods leave can be told from what others have.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir "/sys/fs/cgroup/$name"
else
  for controller in /sys/fs/cgroup/*/; do mkdir -p "$controller$name"; done
fi

export KUBECONFIG=$dir/kubeconfig
start etcd "$bin/etcd" --data-dir="$dir/etcd" --unsafe-no-fsync --listen-client-urls=http://127.0.0.1:2379 \
  --advertise-client-urls=http://127.0.0.1:2379
start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --cert-dir="$dir/pki" \
  --bind-address=0.0.0.0 --advertise-address=$address --secure-port=6443 --service-cluster-ip-range=10.96.0.0/16 \
  --tls-cert-file="$dir/pki/apiserver.crt" --tls-private-key-file="$dir/pki/apiserver.key" \
  --service-account-key-file="$dir/pki/sa.key" --service-account-signing-key-file="$dir/pki/sa.key" \
  --service-account-issuer=https://kubernetes.default.svc --authorization-mode=Node,RBAC \
  --enable-admission-plugins=NodeRestriction --token-auth-file="$dir/pki/tokens.csv" \
  --client-ca-file="$dir/pki/ca.crt" --allow-privileged=true --kubelet-preferred-address-types=InternalIP \
  --kubelet-client-certificate="$dir/pki/kubelet-client.crt" --kubelet-client-key="$dir/pki/kubelet-client.key"
start containerd containerd -c "$dir/containerd.toml"
start registry "$bin/registry" serve "$dir/registry.yaml"
until_ok "$bin/kubectl" get --raw /readyz
same="--kubeconfig=$KUBECONFIG --authentication-kubeconfig=$KUBECONFIG --authorization-kubeconfig=$KUBECONFIG --leader-elect=false"
start kube-controller-manager "$bin/kube-controller-manager" $same --bind-address=127.0.0.1 \
  --service-account-private-key-file="$dir/pki/sa.key" --root-ca-file="$dir/pki/ca.crt" \
  --use-service-account-credentials=true
start kube-scheduler "$bin/kube-scheduler" $same --bind-address=127.0.0.1
until_ok ctr -a "$dir/containerd.sock" version
for image in "$dir"/images/*.tar; do ctr -a "$dir/containerd.sock" -n k8s.io images import "$image" >>"$dir/log/images" 2>&1; done
start kubelet "$bin/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$KUBECONFIG" --root-dir="$dir/kubelet" \
  --cert-dir="$dir/pki" --hostname-override=jetson-0 --node-ip=$address
start kube-proxy "$bin/kube-proxy" --kubeconfig="$KUBECONFIG" --hostname-override=jetson-0 \
  --cluster-cidr=10.244.0.0/16 --proxy-mode=nftables --conntrack-max-per-core=0 \
  --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
until_ok "$bin/kubectl" apply --server-side -f "$dir/cluster.yaml"
start local-path-provisioner "$bin/local-path-provisioner" start --config "$dir/storage.json" --namespace kube-system \
  --kubeconfig "$KUBECONFIG" --configmap-name local-path-config --service-account-name default --helper-image localhost/busybox:1
until_ok "$bin/kubectl" wait --for=condition=Ready node/jetson-0 --timeout=60s
touch "$dir/ready"
wait
