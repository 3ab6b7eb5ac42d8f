#!/bin/sh
# A user's own containers: podman without root, crun, and the network by pasta or slirp4netns, whose sockets are not the
# container's. Runs as root in a virtual machine of its own; each thing that must be so is a line `ok: …` or `FAILED: …`.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
here=/payload dir=/payload/lab
check() { what=$1; shift; if "$@" > /tmp/said 2>&1; then echo "ok: $what"; else echo "FAILED: $what"; cat /tmp/said; fi; }
chaperone() { $here/chaperone "$@" --config $dir/config.toml; }

# No way out but a dummy: pasta wants a default route to copy.
ip link set lo up
ip link add dummy0 type dummy && ip addr add 10.9.9.2/24 dev dummy0 && ip link set dummy0 up
ip route add default via 10.9.9.1
rm -f /etc/resolv.conf && echo 'nameserver 127.0.0.53' > /etc/resolv.conf
mkdir -p $dir/policies && mkdir -m 700 $dir/secrets
printf 'AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n' > $dir/secrets/key
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' $(cat $dir/secrets/key) > $dir/secrets/credentials
echo '@id("all") permit (principal, action, resource);' > $dir/policies/all.cedar
cat > $dir/config.toml <<C
[[agents]]
name = "coder"
users = ["coder"]
[paths]
state = "$dir/state"
control = "$dir/control.sock"
[journal]
dir = "$dir/journal"
segment_bytes = 67108864
[policy]
path = "$dir/policies"
[upstream]
ca_file = "$dir/ca.crt"
[aws]
region = "eu-west-1"
account = "123456789012"
C
useradd -m -u 1000 coder && loginctl enable-linger coder
$here/chaperone-fakes --dir $dir --aws s3 --key $dir/secrets/key > $dir/fakes.log 2>&1 &
for second in $(seq 60); do [ -e $dir/ca.crt ] && break; sleep 1; done
chaperone trust install > /dev/null
mkdir -p /sys/fs/cgroup/system.slice/chaperone.service
(
  echo 0 > /sys/fs/cgroup/system.slice/chaperone.service/cgroup.procs
  AWS_SHARED_CREDENTIALS_FILE=$dir/secrets/credentials exec $here/chaperone daemon --config $dir/config.toml > $dir/daemon.log 2>&1
) &
for second in $(seq 120); do grep -q ' ready ' $dir/daemon.log && break; sleep 1; done
getent hosts s3.eu-west-1.amazonaws.com > /tmp/hosts

cat > /tmp/container.sh <<'R'
# NAME NETWORK SCRIPT: a container with this host's programs, as the user who runs this
export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus HOME=/home/coder
cd
if [ ! -e image ]; then
  mkdir -p image/usr image/etc/ssl image/proc image/sys image/dev image/tmp image/root image/run
  for name in bin lib lib64; do ln -s usr/$name image/$name; done
  tar -C image -c . | podman import --change 'LABEL from=image' - example.com/agents/coder:1
fi
exec podman run --rm --name "$1" --label team=red --network "$2" -e AWS_DEFAULT_REGION=eu-west-1 -e HOME=/root \
  -e REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v /tmp/hosts:/etc/hosts:ro example.com/agents/coder:1 sh -c "$3"
R
echo "podman $(podman --version | cut -d ' ' -f 3), $(crun --version | head -n 1), $(slirp4netns --version | head -n 1)"

for network in pasta slirp4netns; do
  check "$network: an S3 call from a user's own container" \
    su - coder -c "sh /tmp/container.sh by-$network $network 'aws s3 mb s3://$network'"
  cat > /tmp/recorded.py <<P
import json, subprocess
def listed(what):
    said = subprocess.run(["$here/chaperone", what, "--json", "--config", "$dir/config.toml"], capture_output=True, text=True)
    return [json.loads(line) for line in said.stdout.splitlines()]
call = [call for call in listed("calls") if call["host"].startswith("$network.")][-1]
session = next(session for session in listed("sessions") if session["id"] == call["session"])
container = session["container"]
print(call, session)
assert call["status"] == 200 and session["agent"] == "coder"
assert len(container["id"]) == 64 and container["image"] == "example.com/agents/coder:1"
assert container["name"] == "by-$network"
assert container["labels"] == {"from": "image", "team": "red", "io.chaperone.word-of": "uid 1000"}
P
  check "$network: recorded with the container's id, image and labels, as the user's word" python3 /tmp/recorded.py

  su - coder -c "sh /tmp/container.sh idle-$network $network 'sleep 1000'" > /dev/null 2>&1 &
  inside=
  for second in $(seq 60); do inside=$(pgrep -f '^sleep 1000'); [ -n "$inside" ] && break; sleep 1; done
  process=$(pgrep -f "^[^ ]*$network[^ ]* --" | tail -n 1)
  echo "$network itself runs in $(cut -d : -f 3 /proc/$process/cgroup)"
  # Whoever comes past the hooks inside of the container's namespace is dialled for by the user's program outside: here a
  # process in root's own cgroup, which the hooks leave alone.
  check "$network: what it dials for others is captured as its own" sh -c "
    ! nsenter -t $inside -n curl -sS -m 20 -k -o /dev/null https://10.9.9.77/ &&
    $here/chaperone connections --json --config $dir/config.toml | tail -n 1 |
      grep '\"kind\":\"refused\"' | grep '\"destination\":\"10.9.9.77:443\"' | grep '\"pid\":$process,'"
  su - coder -c "podman rm -f -t 0 idle-$network" > /dev/null 2>&1
done
# Exit code 7: it couldn't connect. Not even a socket is made.
check "the user's process outside of the user's slice is refused" sh -c "
  setpriv --reuid 1000 --regid 1000 --init-groups curl -sS -k -m 10 -o /dev/null https://127.77.0.1/; [ \$? = 7 ]"
check "root's own is not" sh -c "curl -sS -k -m 10 -o /dev/null https://127.77.0.1/"
grep -v -e INFO -e chaperone_ebpf $dir/daemon.log | tail
echo "end"
