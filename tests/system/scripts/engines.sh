# Docker and containerd as they run on hosts of both cgroup hierarchies: in a mount namespace where there is only version 2,
# with state of their own; containers with no network but loopback, which is all that a call of an agent's needs. Returns
# when both answer, and leaves them running: `$CHAPERONE_LAB/engines.pid` is in that namespace. ENGINES: their programs.
set -e
engines=$1
# In a chroot, `/` isn't the namespace's own root, which is what containers' programs see that are executed later: then a
# bind mount of it becomes that.
if [ "$(stat -c %d:%i /)" != "$(nsenter --mount=/proc/self/ns/mnt stat -c %d:%i /)" ]; then
  mkdir -p $CHAPERONE_LAB/root; mount --rbind / $CHAPERONE_LAB/root
  exec 9< $CHAPERONE_LAB/root
  exec nsenter --mount=/proc/self/ns/mnt sh -ec 'mount --make-rprivate /; cd /proc/self/fd/9; pivot_root . .; umount -l .
    cd /; exec 9<&-; exec sh "$0" "$1"' "$0" "$engines"
fi
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
for folder in /run /var/lib; do mount -t tmpfs none $folder; done
export PATH=$engines/usr/bin:$engines/usr/sbin:$PATH LD_LIBRARY_PATH=$engines/lib/x86_64-linux-gnu
cd $CHAPERONE_LAB
mkdir -p cni/bin cni/net.d

# A pod's network, by the CNI specification: what is asked for is there, loopback.
cat > cni/bin/loopback <<'C'
#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
nsenter --net=$CNI_NETNS ip link set lo up
echo '{"cniVersion":"0.3.1","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],
  "ips":[{"version":"4","interface":0,"address":"127.0.0.1/8"}]}'
C
chmod 755 cni/bin/loopback
echo '{"cniVersion":"0.3.1","name":"pods","plugins":[{"type":"loopback"}]}' > cni/net.d/pods.conflist

# Where version 2 is beside version 1 it has no controllers: a container's share of the processors can't be set.
cat > runc <<'C'
#!/usr/bin/python3
import json, os, sys
if "--bundle" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    config = json.load(open(path))
    config["linux"]["resources"].pop("cpu", None)
    json.dump(config, open(path + ".new", "w"))
    os.rename(path + ".new", path)
os.execv("/usr/sbin/runc", ["runc"] + sys.argv[1:])
C
# What has agents' containers trust the CA, as the package has it.
printf '#!/bin/sh\nexec %s --config %s oci-runtime -- "$@"\n' "$(command -v chaperone)" "$CHAPERONE_CONFIG" > oci-runtime
chmod 755 runc oci-runtime
cat > containerd.toml <<C
version = 2
root = "$CHAPERONE_LAB/containerd"
state = "$CHAPERONE_LAB/containerd-state"
[plugins."io.containerd.internal.v1.opt"]
path = "$CHAPERONE_LAB/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "example.com/agents/coder:1"
# Without CAP_SYS_RESOURCE nobody's score is lowered.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$CHAPERONE_LAB/cni/bin"
conf_dir = "$CHAPERONE_LAB/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "$CHAPERONE_LAB/oci-runtime"
C
containerd --config containerd.toml > containerd.log 2>&1 &
echo $! > engines.pid
until ctr version > /dev/null 2>&1; do kill -0 $! || { tail containerd.log; exit 1; }; sleep 0.2; done
dockerd --data-root $CHAPERONE_LAB/docker --containerd /run/containerd/containerd.sock --storage-driver vfs \
  --iptables=false --ip6tables=false --bridge none --exec-opt native.cgroupdriver=cgroupfs \
  --add-runtime chaperone=$CHAPERONE_LAB/oci-runtime --default-runtime chaperone --add-runtime runsc=/usr/sbin/runc > dockerd.log 2>&1 &
until docker version > /dev/null 2>&1; do kill -0 $! || { tail dockerd.log; exit 1; }; sleep 0.2; done

# The image has this host's folders, and one program of its own, for pods; the rest of them is mounted.
mkdir -p image/usr/bin image/usr/lib image/usr/lib64 image/etc/ssl image/proc image/sys image/dev image/tmp image/root
for name in bin lib lib64; do [ -L image/$name ] || ln -s usr/$name image/$name; done
cp /usr/bin/sleep image/usr/bin/
for library in $(ldd /usr/bin/sleep | grep -o '/[^ ]*'); do
  mkdir -p image$(dirname $library) && cp -L $library image$library
done
tar -C image -c . | docker import --change 'LABEL from=image' --change 'ENTRYPOINT ["/usr/bin/sleep","100000"]' \
  - example.com/agents/coder:1
docker save example.com/agents/coder:1 | ctr --namespace k8s.io images import --snapshotter native -
getent hosts s3.eu-west-1.amazonaws.com sts.eu-west-1.amazonaws.com > hosts
