# Chaperone as the README installs it, under systemd, and beside it what plays AWS. Sourced by the scripts of the virtual
# machines. Each thing that must be so is a line `ok: …` or `FAILED: …`.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
here=/payload dir=/payload/lab
check() { what=$1; shift; if "$@" > /tmp/said 2>&1; then echo "ok: $what"; else echo "FAILED: $what"; cat /tmp/said; fi; }
# WHAT COMMAND: until it succeeds, a minute at most.
await() { for second in $(seq 60); do sh -c "$2" > /tmp/awaited 2>&1 && return; sleep 1; done; echo "FAILED: in a minute: $1"; cat /tmp/awaited; }

# Up before anything else of the host, so that whoever isn't captured reaches it.
install_aws() {
  rm -f /etc/resolv.conf && echo 'nameserver 127.0.0.53' > /etc/resolv.conf
  mkdir -p $dir
  printf 'AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n' > $dir/key
  cat > /etc/systemd/system/aws.service <<U
[Unit]
DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service
Before=sysinit.target
[Service]
ExecStart=$here/chaperone-fakes --dir $dir --aws s3 --key $dir/key
[Install]
WantedBy=sysinit.target
U
  systemctl enable --quiet --now aws
  await "AWS" "[ -e $dir/ca.crt ]"
}

# The configuration's [[agents]] come from standard input.
install_chaperone() {
  install -m 0755 $here/chaperone /usr/bin/
  install -m 0644 $here/chaperone.service /etc/systemd/system/
  install -d -m 0755 /etc/chaperone/policies
  echo '@id("all") permit (principal, action, resource);' > /etc/chaperone/policies/all.cedar
  cat > /etc/chaperone/config.toml
  cat >> /etc/chaperone/config.toml <<C
[upstream]
ca_file = "$dir/ca.crt"
[aws]
region = "eu-west-1"
account = "123456789012"
C
  install -d -m 0755 /etc/systemd/system/chaperone.service.d
  (umask 077 && printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' $(cat $dir/key) > /etc/chaperone/credentials)
  printf '[Service]\nEnvironment=AWS_SHARED_CREDENTIALS_FILE=/etc/chaperone/credentials\n' > /etc/systemd/system/chaperone.service.d/credentials.conf
  check "setup has the CA trusted, starts the service and finds it well" chaperone setup
  check "the service starts" systemctl is-active chaperone
  # Nothing else could be so.
  systemctl --quiet is-active chaperone || { journalctl -o cat -u chaperone | tail -n 20; echo end; exit 1; }
}

# A container's image: folders to mount this host's programs in.
make_image() {
  mkdir -p image/usr image/etc/ssl image/proc image/sys image/dev image/tmp image/root image/run image/payload
  for name in bin lib lib64; do ln -s usr/$name image/$name; done
  tar -C image -c . | podman import --change 'LABEL from=image' - example.com/agents/coder:1
}
