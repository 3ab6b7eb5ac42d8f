#!/bin/sh
# The image, on an instance: what must be so is a line `ok: …` or `FAILED: …` on the second serial port. Runs as root, once
# a boot; the host counts the time between its lines.
exec > /dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
here=/run/payload dir=/var/lib/standin
check() { what=$1; shift; if "$@" > /tmp/said 2>&1; then echo "ok: $what"; else echo "FAILED: $what"; sed 's/^/| /' /tmp/said | tail -n 30; fi; }
# WHAT COMMAND: until it succeeds, three minutes at most.
await() { for second in $(seq 180); do sh -c "$2" > /tmp/awaited 2>&1 && return; sleep 1; done; echo "FAILED: in three minutes: $1"; sed 's/^/| /' /tmp/awaited; }
reboot_to() { echo "$1" > $dir/boot; cp "$2" $dir/user-data; sync; echo "reboot"; systemctl reboot; exit; }
# As a user logs in, and asks S3 by Debian's own AWS CLI.
as() { su - "$1" -c "AWS_DEFAULT_REGION=eu-west-1 $2"; }
grow() { more=$(( $(wc -l < "$1") + $2 )); await "$2 lines more in $1" "[ \$(wc -l < $1) -ge $more ]"; }
counted() { sort "$1" | uniq -c | sed 's/^ *//' | paste -sd , ; }
boot=$(cat $dir/boot 2> /dev/null || echo first)
echo "up: boot $boot, Linux $(uname -r), systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), $(cut -d ' ' -f 1 /proc/uptime) s after the kernel"
await "the user data" "systemctl show --value -p ActiveState chaperone-provision | grep -q -e '^active' -e failed"
# Started as early as an agent's service can be, and never anything but captured or refused.
check "the earliest agent never reached AWS by itself ($(counted $dir/early))" sh -c "! grep -e aws -e somebody $dir/early"
case $boot in
first)
  check "the user data is in force" systemctl is-active chaperone-provision
  check "bpf is among the LSMs" grep -qw bpf /sys/kernel/security/lsm
  check "a user who is an agent writes to S3" as builder "sh -c 'echo hello | aws s3 cp - s3://data/hello'"
  echo "captured: $(cut -d ' ' -f 1 /proc/uptime) s after the kernel"
  check "the call is recorded" sh -c "chaperone calls --json --action s3:PutObject --agent coder | grep -q '\"allow\"'"
  check "it is in S3, by the instance's role" grep -q hello $dir/s3/data/hello
  check "the agent gets a placeholder, and no user data" sh -c "su - builder -c 'python3 $here/role.py' | tee /dev/stderr | grep -q '^chaperone A' && ! su - builder -c 'python3 $here/role.py' | grep -e AKIAIOSFODNN7EXAMPLE -e agents"
  check "nobody but root reaches the instance's role" sh -c "su -s /bin/sh nobody -c 'python3 $here/role.py' | grep -q refused"
  check "root does" sh -c "python3 $here/role.py | grep -q 'instance-role AKIAIOSFODNN7EXAMPLE'"
  mkdir -p image/usr image/etc/ssl image/proc image/sys image/dev image/tmp image/root image/run
  for name in bin lib lib64; do ln -sf usr/$name image/$name; done
  tar -C image -c . | podman import -q - example.com/agents/coder:1 > /dev/null
  getent hosts s3.eu-west-1.amazonaws.com > /tmp/hosts; echo 200 > /tmp/200
  check "a container that is an agent calls S3, by its label" sh -c "podman run --rm --label team=red --network none -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro \\
    -v /tmp/hosts:/etc/hosts:ro -v $here:$here:ro example.com/agents/coder:1 python3 $here/call.py once | tee /dev/stderr | diff - /tmp/200"
  check "nobody has a password" sh -c "! cut -d : -f 2 /etc/shadow | grep -v '^[!*]'"
  check "nobody logs in by one" sh -c "sshd -T | grep -qx 'passwordauthentication no' && sshd -T | grep -qx 'kbdinteractiveauthentication no' && sshd -T | grep -qx 'permitrootlogin no'"
  check "the admin's key came from the metadata address" grep -q ssh-ed25519 /etc/ssh/authorized_keys/admin
  check "its host keys are its own" sh -c "ls /etc/ssh/ssh_host_*_key"
  check "the root has grown with the disk" sh -c "[ \$(df --output=size -BM / | tail -n 1 | tr -dc 0-9) -gt \$(cat /usr/lib/chaperone-image/size-mib) ]"
  check "security updates come by themselves" systemctl is-enabled unattended-upgrades apt-daily-upgrade.timer
  check "the boot loader would take a new kernel" bootctl --quiet is-installed
  : > /tmp/calls
  systemd-run --quiet --slice=agents.slice --unit=calling python3 $here/call.py on /tmp/calls
  grow /tmp/calls 5
  check "the package is upgraded" dpkg -i $here/next.deb
  grow /tmp/calls 10
  check "the daemon is the new package's" sh -c "dpkg-query -W chaperone | grep -q next && systemctl is-active chaperone"
  check "no call failed over it ($(counted /tmp/calls))" sh -c "! grep -v '^200$' /tmp/calls"
  touch /tmp/calls.stop
  check "no unit failed" sh -c "systemctl --failed --no-legend | tee /dev/stderr | wc -l | grep -qx 0"
  check "doctor finds nothing wrong" chaperone doctor
  check "doctor tells that what an agent's programs bring along trusts the CA" sh -c "chaperone doctor --agent coder | tee /dev/stderr | grep 'aws-cli/2.*would verify'"
  check "and that it doesn't, if that is so" sh -c "chaperone doctor --agent coder --env REQUESTS_CA_BUNDLE=$dir/ca.crt --env AWS_CA_BUNDLE=$dir/ca.crt | tee /dev/stderr | grep 'aws-cli/2.*trust'"
  check "the journal is whole" chaperone verify
  sed 's/^region/regoin/' $here/user-data.toml > /tmp/typo
  reboot_to second /tmp/typo
  ;;
second)
  check "user data with a typo is an error" sh -c "systemctl is-failed chaperone-provision"
  check "it says the line and the key" sh -c "journalctl -o cat -b -u chaperone-provision | tee /dev/stderr | grep 'user data:15: ' && journalctl -o cat -b -u chaperone-provision | grep -q 'unknown field .regoin'"
  check "agents are refused everything" sh -c "! su - builder -c 'AWS_DEFAULT_REGION=eu-west-1 aws s3 ls' > /tmp/refused 2>&1; cat /tmp/refused; grep -q AccessDenied /tmp/refused"
  check "the agent still gets no key of the role's" sh -c "! su - builder -c 'python3 $here/role.py' | grep AKIAIOSFODNN7EXAMPLE"
  reboot_to third $here/user-data.toml
  ;;
third)
  check "mended, it is in force after a boot" systemctl is-active chaperone-provision
  check "the agent's calls are made again" sh -c "su - builder -c 'AWS_DEFAULT_REGION=eu-west-1 aws s3 ls s3://data' | grep hello"
  check "and recorded" sh -c "chaperone calls --json --since 5m --agent coder | grep -q ListBucket"
  check "the journal is whole" chaperone verify
  ;;
esac
echo "end"
systemctl poweroff
