#!/bin/sh
# The service as it is shipped, under systemd: installed, restarted, killed, starved, stopped and taken off while agents work;
# then a boot with an agent that is as early as it can be, and one with a configuration that can't be used. Runs as root
# in a virtual machine of its own, once a boot.
. /payload/install.sh
boot=$(cat /payload/boot 2> /dev/null || echo first)
reboot_to() { echo "$1" > /payload/boot; touch /payload/again; sync; systemctl reboot; exit; }
rm -f /payload/again
daemon() { systemctl show --value -p MainPID chaperone; }
# FILE: what is in it now, each kind of line with how often.
counted() { sort "$1" | uniq -c | sed 's/^ *//' | paste -sd , ; }
# FILE COUNT: until it has so many lines more.
grow() { more=$(( $(wc -l < "$1") + $2 )); await "$2 lines more in $1" "[ \$(wc -l < $1) -ge $more ]"; }

# After what the terminal is told.
echo
case $boot in
first)
  echo "systemd $(systemctl --version | head -n 1 | cut -d ' ' -f 2), Linux $(uname -r)"
  useradd -m -u 1000 coder && loginctl enable-linger coder
  install_aws
  install_chaperone <<'C'
[[agents]]
name = "coder"
slices = ["agents.slice"]
units = ["agent-*.service"]
users = ["coder"]
labels = ["team=red"]
run = true
C
  echo 200 > /tmp/200
  check "an agent in a slice calls AWS" sh -c "systemd-run --quiet --pipe --wait --slice=agents.slice python3 $here/call.py once | diff - /tmp/200"
  check "an agent's unit does" sh -c "systemd-run --quiet --pipe --wait --unit=agent-1 python3 $here/call.py once | diff - /tmp/200"
  check "a user who is an agent does, from a login" sh -c "su - coder -c 'python3 $here/call.py once' | diff - /tmp/200"
  check "what \`chaperone run\` starts does" sh -c "chaperone run --agent coder -- python3 $here/call.py once | diff - /tmp/200"
  check "a user can't ask the daemon" sh -c "! su - coder -c 'chaperone status'"
  check "doctor finds nothing wrong" chaperone doctor
  check "setup can be run again, and sees a process of the agent captured" sh -c "chaperone setup | grep 'was captured'"

  cd /root && make_image > /dev/null 2>&1
  getent hosts s3.eu-west-1.amazonaws.com > /tmp/hosts
  check "a container does, by its label" sh -c "podman run --rm --label team=red --network none -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro \\
    -v /tmp/hosts:/etc/hosts:ro -v $here:$here:ro example.com/agents/coder:1 python3 $here/call.py once | diff - /tmp/200"
  check "its image and labels are recorded" sh -c "chaperone sessions --json | grep '\"image\":\"example.com/agents/coder:1\"' | grep '\"team\":\"red\"'"

  mkdir /home/coder/bin && cp /bin/true /home/coder/bin/mine && cp /bin/true /tmp/mine && chown -R coder /home/coder/bin
  su - coder -c '/home/coder/bin/mine; /tmp/mine'
  cat > /tmp/hashed.py <<'P'
import hashlib, json, subprocess
wanted = hashlib.sha256(open("/bin/true", "rb").read()).hexdigest()
lines = subprocess.run(["chaperone", "commands", "--json"], capture_output=True, text=True, check=True).stdout.splitlines()
found = {command["exe"]: command["exe_sha256"] for command in map(json.loads, lines) if command["exe"].endswith("/mine")}
assert found == {"/home/coder/bin/mine": wanted, "/tmp/mine": wanted}, found
P
  check "programs in homes and in /tmp are recorded with their digest" python3 /tmp/hashed.py

  # From here on one agent calls, and another dials.
  : > /tmp/calls; : > /tmp/dials
  systemd-run --quiet --slice=agents.slice --unit=calling python3 $here/call.py on /tmp/calls
  systemd-run --quiet --slice=agents.slice --unit=dialling python3 $here/call.py dial /tmp/dials
  grow /tmp/calls 10
  for round in 1 2 3; do
    before=$(daemon)
    systemctl restart chaperone
    grow /tmp/calls 10
    [ "$(daemon)" != "$before" ] || echo "FAILED: it is the same daemon"
  done
  check "three restarts: every call is answered ($(counted /tmp/calls); $(counted /tmp/dials))" sh -c "! grep -v '^200$' /tmp/calls && ! grep -v '^daemon$' /tmp/dials"
  check "the listeners were taken over each time" sh -c "[ \$(journalctl -o cat -u chaperone | grep -c 'took over the listeners') = 3 ]"

  kill -9 "$(daemon)"
  grow /tmp/calls 10
  check "killed, it is back by itself; at most what was under way failed ($(counted /tmp/calls); $(counted /tmp/dials))" \
    sh -c "[ \$(grep -vc '^200$' /tmp/calls) -le 1 ] && [ \$(grep -vc '^daemon$' /tmp/dials) -le 1 ] && ! grep aws /tmp/dials"

  : > /tmp/calls; : > /tmp/dials
  systemctl set-property --runtime chaperone MemoryMax=2M
  await "a kill for want of memory" "journalctl -o cat -u chaperone | grep -q 'oom-kill'"
  grow /tmp/dials 2
  check "starved of memory, it lets nothing out ($(counted /tmp/dials))" sh -c "! grep -e aws -e somebody /tmp/dials"
  systemctl set-property --runtime chaperone MemoryMax=infinity
  grow /tmp/dials 1
  await "the daemon with memory" "systemctl is-active chaperone"
  : > /tmp/calls
  grow /tmp/calls 10
  check "with memory it is back by itself ($(counted /tmp/calls))" sh -c "! grep -v '^200$' /tmp/calls"

  systemctl stop chaperone
  : > /tmp/dials; : > /tmp/calls
  grow /tmp/dials 20
  check "stopped, agents are refused ($(counted /tmp/dials))" sh -c "! grep -v -e EPERM -e ECONNRESET /tmp/dials"
  chaperone disable
  # What was under way.
  grow /tmp/dials 1
  : > /tmp/dials
  grow /tmp/dials 20
  check "taken off, they aren't ($(counted /tmp/dials))" sh -c "! grep -v -e aws /tmp/dials"
  systemctl start chaperone
  : > /tmp/dials; : > /tmp/calls
  grow /tmp/dials 20
  grow /tmp/calls 10
  check "started again, they are captured ($(counted /tmp/dials); $(counted /tmp/calls))" sh -c "! grep -v daemon /tmp/dials"
  touch /tmp/dials.stop /tmp/calls.stop
  check "the journal is whole" chaperone verify
  systemd-analyze security --no-pager chaperone | tail -n 1

  # An agent that is there as early as a service can be.
  cat > /etc/systemd/system/early.service <<U
[Service]
Slice=agents.slice
ExecStart=python3 $here/call.py dial /payload/early
[Install]
WantedBy=multi-user.target
U
  systemctl daemon-reload
  systemctl enable --quiet early
  : > /payload/early
  reboot_to second
  ;;
second)
  grow /payload/early 20
  check "after a boot, an early agent is captured from its first connection on ($(counted /payload/early))" sh -c "! grep -v daemon /payload/early"
  check "the host is up" systemctl is-active basic.target
  check "the journal is whole" chaperone verify
  sed -i '1i nonsense = 1' /etc/chaperone/config.toml
  touch /payload/early.stop && sleep 1 && rm /payload/early.stop
  : > /payload/early
  reboot_to third
  ;;
third)
  grow /payload/early 20
  check "after a boot with a configuration that can't be used, it is refused ($(counted /payload/early))" sh -c "! grep -v EPERM /payload/early"
  check "the host is up all the same" systemctl is-active basic.target
  check "the log says why" sh -c "journalctl -o cat -u chaperone | grep 'config.toml:1' && journalctl -o cat -u chaperone | grep in-force.json"
  sed -i 1d /etc/chaperone/config.toml
  await "the daemon by itself" "systemctl is-active chaperone"
  : > /payload/early
  grow /payload/early 20
  check "once it is mended, the daemon is there by itself ($(counted /payload/early))" sh -c "! grep -v daemon /payload/early"
  check "the journal is whole" chaperone verify
  journalctl -o cat -u chaperone -p warning | tail
  ;;
esac
echo "end"
