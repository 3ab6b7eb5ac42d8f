#!/bin/sh
# A user's own containers: podman without root, crun, and the network by pasta or slirp4netns, whose sockets are not the
# container's. Runs as root in a virtual machine of its own; each thing that must be so is a line `ok: …` or `FAILED: …`.
. /payload/install.sh

# No way out but a dummy: pasta wants a default route to copy.
ip link set lo up
ip link add dummy0 type dummy && ip addr add 10.9.9.2/24 dev dummy0 && ip link set dummy0 up
ip route add default via 10.9.9.1
install_aws
useradd -m -u 1000 coder && loginctl enable-linger coder
install_chaperone <<C
[[agents]]
name = "coder"
users = ["coder"]
C
getent hosts s3.eu-west-1.amazonaws.com > /tmp/hosts

cat > /tmp/container.sh <<'R'
# NAME NETWORK SCRIPT: a container with this host's programs, as the user who runs this
export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus HOME=/home/coder
cd
[ -e image ] || (. /payload/install.sh && export HOME=/home/coder && make_image)
exec podman run --rm --name "$1" --label team=red --network "$2" -e AWS_DEFAULT_REGION=eu-west-1 -e HOME=/root \
  -e REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v /tmp/hosts:/etc/hosts:ro example.com/agents/coder:1 sh -c "$3"
R
echo
echo "podman $(podman --version | cut -d ' ' -f 3), $(crun --version | head -n 1), $(slirp4netns --version | head -n 1)"

for network in pasta slirp4netns; do
  check "$network: an S3 call from a user's own container" \
    su - coder -c "sh /tmp/container.sh by-$network $network 'aws s3 mb s3://$network'"
  cat > /tmp/recorded.py <<P
import json, subprocess
def listed(what):
    said = subprocess.run(["chaperone", what, "--json"], capture_output=True, text=True)
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
    chaperone connections --json | tail -n 1 |
      grep '\"kind\":\"refused\"' | grep '\"destination\":\"10.9.9.77:443\"' | grep '\"pid\":$process,'"
  su - coder -c "podman rm -f -t 0 idle-$network" > /dev/null 2>&1
done
# Exit code 7: it couldn't connect. Not even a socket is made.
check "the user's process outside of the user's slice is refused" sh -c "
  setpriv --reuid 1000 --regid 1000 --init-groups curl -sS -k -m 10 -o /dev/null https://127.77.0.1/; [ \$? = 7 ]"
check "root's own is not" sh -c "curl -sS -k -m 10 -o /dev/null https://127.77.0.1/"
journalctl -o cat -u chaperone | grep -v -e INFO -e chaperone_ebpf | tail
echo "end"
