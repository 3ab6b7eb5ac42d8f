# The packages' life in a fresh Debian's tree: TREE DEB NEXT-DEB RPM NEXT-RPM. Runs in mount, pid and network namespaces of
# its own; the tree is laid under, so that it stays as it is. systemd doesn't run there: the virtual machines have that.
tree=$1 deb=$2 next=$3 rpm=$4 next_rpm=$5
mount --make-rprivate / 2> /dev/null
mount -t tmpfs check /mnt && mkdir /mnt/over /mnt/work /mnt/root /mnt/packages
mount -t overlay check -o "lowerdir=$tree,upperdir=/mnt/over,workdir=/mnt/work" /mnt/root || exit 1
root=/mnt/root
mkdir -p $root/packages && cp "$deb" $root/packages/first.deb && cp "$next" $root/packages/next.deb
mount -t proc proc $root/proc
for each in null urandom random; do touch $root/dev/$each; mount --bind /dev/$each $root/dev/$each; done
within() { chroot $root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
check() { what=$1; shift; if "$@" > /mnt/said 2>&1; then echo "ok: $what"; else echo "FAILED: $what"; cat /mnt/said; fi; }
shell() { within sh -c "$1"; }
said() { grep -q "$1" /mnt/last; }
files() { (cd $root && find etc usr var/lib -xdev \( -path var/lib/dpkg -o -path var/lib/rpm \) -prune -o ! -type d -print | LC_ALL=C sort); }

files > /mnt/before
check "the .deb installs" sh -c "chroot $root dpkg -i /packages/first.deb > /mnt/last 2>&1 || { cat /mnt/last; false; }"
check "it says what to do next" said "Nothing on this host is changed"
check "the program runs" within chaperone --version
check "no service is enabled, no CA made, no variable set" shell \
  '! find /etc/systemd /etc/profile.d /etc/environment.d /var/lib/chaperone -name "*chaperone*" 2> /dev/null | grep .'
check "the files are as packaged" shell '[ -z "$(dpkg --verify chaperone)" ]'
check "the manual and the completions are there" shell 'grep -q chaperone /usr/share/bash-completion/completions/chaperone &&
  dpkg -L chaperone | grep -q man1/chaperone-trust-install.1.gz'
check "the shipped policy is what \`policy default\` prints" shell 'chaperone policy default | cmp - /etc/chaperone/policies/default.cedar'
check "without an agent the configuration is refused, by name" shell 'chaperone config check 2>&1 | grep -q agents'
# What somebody configured, and a journal.
shell 'mkdir -p /var/lib/chaperone/journal; echo record > /var/lib/chaperone/journal/1; echo secret > /var/lib/chaperone/placeholders.key'
check "what setup would write is shown, and nothing done" shell 'chaperone setup --agent coder --slice agents.slice --dry-run | grep -q agents.slice && ! grep -q "^slices" /etc/chaperone/config.toml'
check "setup writes a configuration, and keeps the comments" shell 'chaperone setup --agent coder --slice agents.slice --no-start && grep -q "^slices" /etc/chaperone/config.toml && grep -q "config default" /etc/chaperone/config.toml'
check "it can be run again" shell 'cp /etc/chaperone/config.toml /tmp/was && chaperone setup --no-start && cmp /tmp/was /etc/chaperone/config.toml'
check "with one it is taken" within chaperone config check
check "trust is installed" shell 'grep -q "$(sed -n 2p /var/lib/chaperone/ca/ca.crt)" /etc/ssl/certs/ca-certificates.crt'
check "an upgrade asks nothing and keeps the configuration" shell 'dpkg -i /packages/next.deb < /dev/null && grep -q coder /etc/chaperone/config.toml &&
  dpkg-query -W chaperone | grep -q next'
shell 'mkdir -p /etc/docker && echo /usr/libexec/chaperone-oci-runtime > /etc/docker/daemon.json'
check "nothing is removed that Docker starts containers by" shell '! dpkg -r chaperone && chaperone --version && [ -x /usr/libexec/chaperone-oci-runtime ]'
shell 'rm -r /etc/docker'
check "a wrong wish of how agents are left removes nothing" shell '! CHAPERONE_ON_REMOVE=perhaps dpkg -r chaperone && chaperone --version'
shell 'mkdir -p /etc/containers/oci/hooks.d && echo oci-hook > /etc/containers/oci/hooks.d/50-chaperone.json'
check "it is removed" sh -c "chroot $root dpkg -r chaperone > /mnt/last 2>&1"
check "it says how agents are left, and where the journal is" sh -c 'grep -q "no hooks are in force" /mnt/last && grep -q "journal is kept" /mnt/last'
check "podman isn't told to call what isn't there" shell '[ ! -e /etc/containers/oci/hooks.d/50-chaperone.json ] && rm -r /etc/containers'
check "the CA is trusted no more" shell '! grep -q "$(sed -n 2p /var/lib/chaperone/ca/ca.crt)" /etc/ssl/certs/ca-certificates.crt'
check "the configuration stays" shell 'grep -q coder /etc/chaperone/config.toml && [ ! -e /usr/bin/chaperone ]'
check "a purge keeps the journal, and nothing else" shell 'dpkg -P chaperone && [ "$(find /var/lib/chaperone -type f)" = /var/lib/chaperone/journal/1 ] && [ ! -e /etc/chaperone ]'
shell 'dpkg -i /packages/first.deb; CHAPERONE_PURGE_JOURNAL=yes dpkg -P chaperone' > /mnt/last 2>&1
check "told so, it deletes the journal" sh -c "grep -q 'is deleted' /mnt/last && [ ! -e $root/var/lib/chaperone ]"
files > /mnt/after
check "the host's files are as they were before" diff /mnt/before /mnt/after

# The .rpm by Debian's rpm, with its own database in the same tree: no distribution of RPM's is booted.
check "the .rpm installs, and its script says what to do next" sh -c "rpm --root $root --nodeps --nosignature -i $rpm > /mnt/last 2>&1; grep -q 'Nothing on this host is changed' /mnt/last || { cat /mnt/last; false; }"
check "its files are as packaged" rpm --root $root -V --nodeps chaperone
(cd $root && dpkg-deb -c "$deb") | awk '$6 !~ /\/$/ { print substr($6, 2) }' | LC_ALL=C sort > /mnt/of-deb
rpm --root $root -ql chaperone | grep -v -x -e /etc/chaperone -e /etc/chaperone/policies | LC_ALL=C sort > /mnt/of-rpm
check "both formats have the same files" diff /mnt/of-deb /mnt/of-rpm
check "the program runs from it" within chaperone --version
shell 'printf "[[agents]]\nname = \"coder\"\nslices = [\"agents.slice\"]\n" >> /etc/chaperone/config.toml'
check "the .rpm's upgrade keeps the configuration" sh -c "rpm --root $root --nodeps --nosignature -U $next_rpm && grep -q coder $root/etc/chaperone/config.toml"
check "the .rpm is removed and says how agents are left" sh -c "rpm --root $root --nodeps -e chaperone > /mnt/last 2>&1; grep -q 'no hooks are in force' /mnt/last && [ ! -e $root/usr/bin/chaperone ] && ls $root/etc/chaperone/config.toml.rpmsave"
echo end
