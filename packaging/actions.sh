# What the packages' scripts do. `cargo xtask package` puts the lines that call these below, in the words of each format.
say() { echo "chaperone: $*"; }
systemd_runs() { [ -d /run/systemd/system ]; }

# new | again: the files are in place.
installed() {
  systemd_runs && systemctl daemon-reload
  if [ "$1" = new ]; then
    say "installed. Nothing on this host is changed until it is configured:"
    say "\`chaperone setup\` asks who the agents are, and starts it"
    return 0
  fi
  # The listeners are kept, so agents' connections wait for the next daemon. It isn't started if it didn't run.
  if systemd_runs && systemctl --quiet is-active chaperone; then
    if systemctl restart chaperone; then
      say "the new version runs; agents waited for it"
    else
      say "the new version doesn't start, and agents are refused: journalctl -u chaperone says why" >&2
    fi
  fi
  return 0
}

# Before the files go. How agents are left is asked by CHAPERONE_ON_REMOVE, or else by a word in /etc/chaperone/on-remove.
removing() {
  asked=${CHAPERONE_ON_REMOVE:-}
  [ -n "$asked" ] || ! [ -e /etc/chaperone/on-remove ] || asked=$(cat /etc/chaperone/on-remove)
  case ${asked:-refuse} in
    refuse | free) ;;
    *)
      say "\`$asked\`: CHAPERONE_ON_REMOVE (or /etc/chaperone/on-remove) says \`refuse\` or \`free\`; nothing is removed" >&2
      return 1
      ;;
  esac
  # Without it these engines would start no container at all.
  engines=$(grep -ls chaperone-oci-runtime /etc/docker/daemon.json /etc/containerd/*.toml /etc/containerd/*/*.toml || :)
  if [ -n "$engines" ]; then
    say "these have containers started by chaperone-oci-runtime; take that out and restart the engine, then remove:" $engines >&2
    return 1
  fi
  hooks=$(chaperone config show 2> /dev/null | sed -n 's/^bpffs = "\(.*\)"$/\1/p')
  hooks=${hooks:-/sys/fs/bpf/chaperone}
  systemd_runs && systemctl disable --now chaperone
  if [ "${asked:-refuse}" = free ]; then
    # What can't be recorded isn't done: the package stays, and agents are refused.
    if [ -e "$hooks" ] && ! chaperone disable; then
      say "agents couldn't be freed, and are refused; nothing is removed" >&2
      return 1
    fi
    say "agents are free: they reach AWS by themselves, and nothing of it is recorded"
  elif [ -e "$hooks" ]; then
    say "agents stay REFUSED until the next boot, and are free after it; to free them now: rm -r $hooks"
  else
    say "no hooks are in force: no agent is refused"
  fi
  # podman starts no container where a hook's program isn't there.
  if grep -qs oci-hook /etc/containers/oci/hooks.d/50-chaperone.json; then
    rm -f /etc/containers/oci/hooks.d/50-chaperone.json /etc/containers/containers.conf.d/50-chaperone.conf
  fi
  # A CA that nobody looks after is trusted by nobody. What has no configuration never had one.
  if chaperone config check > /dev/null 2>&1; then
    chaperone trust remove > /dev/null || say "the CA may still be trusted by this host: see above" >&2
  fi
  return 0
}

removed() {
  systemd_runs && systemctl daemon-reload
  [ ! -e /var/lib/chaperone/journal ] || say "the journal is kept in /var/lib/chaperone/journal"
  return 0
}

# All but the record; with CHAPERONE_PURGE_JOURNAL=yes that, too. A journal.dir elsewhere is never touched.
purged() {
  rm -f /etc/chaperone/on-remove
  rmdir /etc/chaperone/policies /etc/chaperone 2> /dev/null || :
  [ -d /var/lib/chaperone ] || return 0
  if [ "${CHAPERONE_PURGE_JOURNAL:-no}" = yes ]; then
    rm -rf /var/lib/chaperone
    say "the journal in /var/lib/chaperone is deleted, as CHAPERONE_PURGE_JOURNAL=yes says"
  else
    find /var/lib/chaperone -mindepth 1 -maxdepth 1 ! -name journal -exec rm -rf {} +
    rmdir /var/lib/chaperone 2> /dev/null || :
  fi
  return 0
}
