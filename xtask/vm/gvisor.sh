#!/bin/sh
# Google's gVisor, whose containers bring a kernel of their own: what it sends by a packet socket is refused, what it sends
# by the host's sockets is captured. Runs as root in a virtual machine of its own; each thing that must be so is a line
# `ok: …` or `FAILED: …`.
. /payload/install.sh
export PATH=$PATH:$here/usr/bin

echo
echo "gVisor $(runsc --version | head -n 1 | cut -d ' ' -f 3), podman $(podman --version | cut -d ' ' -f 3), Linux $(uname -r)"
install_aws
install_chaperone <<'C'
[[agents]]
name = "coder"
slices = ["agents.slice"]
labels = ["team=red"]
[metrics]
listen = "127.0.0.1:9464"
C
check "doctor finds nothing wrong" chaperone doctor

# A container's network, whose way out ends at whoever counts there. Made anew for each: gVisor takes the address away.
network() {
  ip netns del box 2> /dev/null; ip link del out 2> /dev/null
  ip netns add box
  ip link add out type veth peer name eth0 netns box
  ip addr add 10.9.9.1/24 dev out && ip link set out up
  ip -n box addr add 10.9.9.2/24 dev eth0 && ip -n box link set eth0 up && ip -n box link set lo up
  ip -n box route add default via 10.9.9.1
}
network
cat > /tmp/outside.py <<'P'
import socket
listening = socket.socket()
listening.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: the address comes and goes
listening.bind(("10.9.9.1", 443))
listening.listen()
open("/tmp/met", "w").close()
while True:
    link, peer = listening.accept()
    with open("/tmp/met", "a") as met:
        print(peer[0], file=met)
P
systemd-run --quiet --unit=outside python3 /tmp/outside.py
await "who is outside" "[ -e /tmp/met ]"

cd /root && make_image > /dev/null 2>&1
getent hosts s3.eu-west-1.amazonaws.com > /tmp/hosts
cat > /tmp/dial.py <<'P'
import errno, socket
try:
    socket.create_connection(("10.9.9.1", 443), timeout=10).close()
    print("met")
except OSError as error:
    print(errno.errorcode.get(error.errno, type(error).__name__))
P
# FOLDER NETNS CGROUP COMMAND: a bundle by the OCI's runtime specification.
cat > /tmp/bundle.py <<'P'
import json, os, sys
folder, netns, cgroup, *command = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
binds = [("/usr", "/usr"), ("/etc/ssl", "/etc/ssl"), ("/payload", "/payload"), ("/tmp", "/tmp"), ("/tmp/hosts", "/etc/hosts")]
spec = {
    "ociVersion": "1.0.0", "hostname": "box",
    "process": {"args": command, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/usr/bin:/bin"]},
    "root": {"path": "/root/image"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]
        + [{"destination": to, "type": "bind", "source": of, "options": ["rbind"]} for of, to in binds],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}] + ([{"type": "network", "path": netns}] if netns else [])},
}
if cgroup:
    spec["linux"]["cgroupsPath"] = cgroup
json.dump(spec, open(folder + "/config.json", "w"))
P
# This gVisor takes a namespace for the host's own if it sees a file there, which newer kernels have in all of them.
mount -t tmpfs none /proc/sys/net
# NAME NETWORK NETNS CGROUP COMMAND …: as an engine has it made. What the program inside says.
run() {
  name=$1 network=$2; shift 2; python3 /tmp/bundle.py "/tmp/bundles/$name" "$@"
  ignored=; [ -n "$2" ] || ignored=--ignore-cgroups
  timeout 120 runsc --root /tmp/runsc --platform ptrace --network "$network" $ignored run --bundle "/tmp/bundles/$name" "$name" 2>&1
}
box=/var/run/netns/box dial="/usr/bin/python3 /tmp/dial.py" call="/usr/bin/python3 $here/call.py once"

# Of sockets that were handed to agents, how many were refused or guarded.
handed() { curl -sS http://127.0.0.1:9464/metrics | sed -n 's/^chaperone_hook_events.*handed_over.* \([0-9]*\).*/\1/p'; }

network; run free sandbox $box "" $dial > /tmp/free
check "a sandbox that is nobody's is let out: $(tail -n 1 /tmp/free)" sh -c "grep -x met /tmp/free && [ -s /tmp/met ]"
: > /tmp/met

network; python3 /tmp/bundle.py /tmp/bundles/own $box "" $dial
systemd-run --quiet --pipe --wait --slice=agents.slice $here/usr/bin/runsc --root /tmp/runsc-own --platform ptrace \
  --ignore-cgroups run --bundle /tmp/bundles/own own > /tmp/own 2>&1
check "one that an agent starts is refused its packet socket" grep "create raw socket: operation not permitted" /tmp/own

network; before=$(handed); run given sandbox $box /agents.slice/given $dial > /tmp/given
check "one that an engine starts for an agent gets nothing out by the socket that it is given: $(tail -n 1 /tmp/given), $(($(handed) - before)) refused" \
  sh -c "grep -x EHOSTUNREACH /tmp/given && [ $(handed) -gt $before ]"

run hosts host "" /agents.slice/hosts $call > /tmp/hosted
check "one with the host's sockets calls AWS" grep -x 200 /tmp/hosted
cat > /tmp/recorded.py <<'P'
import json, subprocess, sys
def listed(what):
    said = subprocess.run(["chaperone", what, "--json"], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in said.stdout.splitlines()]
call = listed("calls")[-1]
session = next(session for session in listed("sessions") if session["id"] == call["session"])
command = next(command for command in listed("commands") if command["id"] == call["command"])
print(call, session, command)
assert (call["operation"], call["status"], session["agent"]) == ("ListBuckets", 200, "coder")
assert command["argv"][0] == "runsc-sandbox" and session["cgroup"] == "/agents.slice/hosts"
P
check "... recorded as the agent's, made by gVisor's own program" python3 /tmp/recorded.py

# NAME OPTION COMMAND: by podman, enrolled by label.
contain() {
  name=$1 option=$2; shift 2
  podman run -d --name "$name" --runtime $here/usr/bin/runsc --runtime-flag platform=ptrace $option --label team=red \
    -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v $here:$here:ro -v /tmp:/tmp -v /tmp/hosts:/etc/hosts:ro example.com/agents/coder:1 sh -c "$1" > /tmp/podman 2>&1
}
network; before=$(handed); contain red "--network ns:$box" "$dial > /tmp/red; sleep 1000"
await "the container" "[ -s /tmp/red ]"
check "a container of podman's gets nothing out either: $(cat /tmp/red), $(($(handed) - before)) refused" \
  sh -c "grep -x EHOSTUNREACH /tmp/red && [ $(handed) -gt $before ]"
check "doctor says that it can't be captured" sh -c "! chaperone doctor > /tmp/doctor && grep '^FAIL  containers .*agent .coder., $here/usr/bin/runsc: ' /tmp/doctor"
check "and so does the log" sh -c "journalctl -o cat -u chaperone | grep \"can't be captured\""
check "nothing of an agent's got out" sh -c "[ ! -s /tmp/met ]"
check "the journal is whole" chaperone verify
journalctl -o cat -u chaperone -p warning | tail
echo "end"
