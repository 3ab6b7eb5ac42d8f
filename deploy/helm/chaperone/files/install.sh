#!/bin/sh
# Puts the package's files and the chart's configuration on a node, and has systemd run the daemon there: PAYLOAD WANTED NODE,
# folders. The daemon is the node's, so that it is there before pods are, and keeps its listeners over an upgrade. It can be
# run again; what is the same changes nothing.
set -eu
payload=$1 wanted=$2 node=$3
on_node() { chroot "$node" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
say() { echo "chaperone: $*"; }
fail() { say "$*" >&2; exit 1; }

[ -e "$node/run/systemd/system" ] || fail "this node has no systemd, which is to run the daemon"
[ -e "$node/sys/kernel/btf/vmlinux" ] || fail "this node's kernel has no BTF: take one with CONFIG_DEBUG_INFO_BTF"
touch "$node/usr/bin/.chaperone" 2> /dev/null || fail "/usr is read-only on this node: put the package into its image"
rm "$node/usr/bin/.chaperone"

changed=no
# A running program can't be written to: its name is given to another file.
put() {
  if ! cmp -s "$1" "$2"; then
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new" && chmod "$3" "$2.new" && mv "$2.new" "$2"
    changed=yes
  fi
}
for file in usr/bin/chaperone usr/libexec/chaperone-oci-runtime; do put "$payload/$file" "$node/$file" 755; done
put "$payload/usr/lib/systemd/system/chaperone.service" "$node/etc/systemd/system/chaperone.service" 644
on_node chaperone --version || fail "the program doesn't start on this node: is its glibc older than the package's?"

# Checked where nothing is in force yet.
next=/run/chaperone-next
rm -rf "$node$next"
mkdir -p "$node$next/policies"
cp "$wanted/config.toml" "$node$next/config.toml"
found=no
for policy in "$wanted"/policies/*.cedar; do
  [ -e "$policy" ] || continue
  found=yes
  cp "$policy" "$node$next/policies/"
done
[ $found = yes ] || cp "$payload/etc/chaperone/policies/default.cedar" "$node$next/policies/"
on_node chaperone --config $next/config.toml config check || fail "the chart's configuration can't be used; the node is as it was"
on_node chaperone --config $next/config.toml policy check $next/policies || fail "the chart's policies can't be used; the node is as it was"
if ! cmp -s "$node$next/config.toml" "$node/etc/chaperone/config.toml" ||
  ! diff -r "$node$next/policies" "$node/etc/chaperone/policies" > /dev/null 2>&1; then
  mkdir -p "$node/etc/chaperone"
  rm -rf "$node/etc/chaperone/policies"
  mv "$node$next/policies" "$node/etc/chaperone/policies"
  mv "$node$next/config.toml" "$node/etc/chaperone/config.toml"
  changed=yes
fi
rm -rf "$node$next"

on_node chaperone trust install || fail "the node's stores don't trust the CA: see above"
on_node systemctl daemon-reload
on_node systemctl --quiet enable chaperone
if [ $changed = yes ]; then
  on_node systemctl restart chaperone || fail "the daemon doesn't start, and agents are refused: journalctl -u chaperone on the node says why"
else
  on_node systemctl start chaperone
fi
say "it runs on this node"
