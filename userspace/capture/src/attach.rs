//! The attached hooks: enrolling cgroups, and what the hooks tell.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, RingBuf, SockHash},
};
use aya_log::EbpfLogger;
use chaperone_ebpf_abi::{ENROLLED, EXEMPT, MAX_CGROUP_LEVEL, MAX_ENROLLED, Tuple};
use chaperone_model::CgroupId;
use parking_lot::Mutex;

use crate::{
    ArgumentMask, CaptureError, Commands, Counters, Origins, PendingCgroups, PreexistingConnection,
    arguments::Arguments,
    bpffs, cgroup,
    commands::{self, Losses, Probes, Shares},
    hooks::{self, Attached, Hooks, LsmHooks, Made},
    kernel_log::{self, Forward},
    leftovers,
    listen::{Key, Namespaces},
    maps::{HomeRecord, Proxies, RunningCommand, Tables},
    origin::Record,
    preexisting,
    running::Gone,
    sys,
};

/// How long the kernel may take to take the hooks off.
const DETACHING: Duration = Duration::from_mins(1);

/// What capturing needs to know.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The daemon's own folder in the BPF filesystem, such as `/sys/fs/bpf/chaperone`.
    pub bpffs: PathBuf,
    /// Where cgroup v2 is mounted; `None` to look it up.
    pub cgroup_root: Option<PathBuf>,
    /// Whether to do without the hooks of the LSM.
    pub lsm: LsmHooks,
    /// What is masked in processes' arguments.
    pub mask: Arc<ArgumentMask>,
}

/// The attached hooks. Dropping it leaves them attached: enrolled processes are refused until a daemon listens again.
pub struct Capture {
    folder: Option<bpffs::Folder>,
    cgroup_root: PathBuf,
    pub(crate) enrolled: Mutex<HashMap<MapData, u64, u32>>,
    pub(crate) unenrolled: Mutex<Array<MapData, u64>>,
    pub(crate) held: Option<PendingCgroups>,
    pub(crate) rules: Mutex<Tables>,
    pub(crate) bound_ids: Mutex<LpmTrie<MapData, [u8; 4], u32>>,
    pub(crate) proxies: Mutex<Proxies>,
    pub(crate) listeners: Mutex<SockHash<MapData, Key>>,
    pub(crate) home: Mutex<Array<MapData, HomeRecord>>,
    pub(crate) namespaces: Mutex<Namespaces>,
    pending: HashMap<MapData, PendingKey, Record>,
    origins: Origins,
    counters: Counters,
    /// Where the hooks of cgroups are attached.
    place: PathBuf,
    hooks: Hooks,
    commands: Option<Commands>,
    pub(crate) probes: Probes,
    commands_lost: Mutex<Array<MapData, u64>>,
    pub(crate) running: Mutex<HashMap<MapData, u32, RunningCommand>>,
    pub(crate) gone: Mutex<Gone>,
    log: Option<EbpfLogger<Forward>>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("folder", &self.folder.as_ref().map(|folder| &folder.path))
            .field("cgroup_root", &self.cgroup_root)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Loads the hooks and attaches them at the root of cgroup v2, in the place of those that an earlier daemon left:
    /// each is exchanged in one step, so that there is no moment without. Enrolments are kept from then. Nothing is
    /// redirected before [`listen`](Self::listen); until then, enrolled processes are refused.
    pub fn attach(config: &CaptureConfig) -> Result<Self, CaptureError> {
        Self::attach_at(config, &[], None)
    }

    /// As [`attach`](Self::attach), beside hooks that are there already, and pinned nowhere: nothing outlives this process.
    /// For trying what the kernel takes.
    pub fn attach_for_now(config: &CaptureConfig) -> Result<Self, CaptureError> {
        Self::attach_in(None, config, &[], None)
    }

    /// As [`attach`](Self::attach), with other sizes for some maps: tests of full maps.
    #[doc(hidden)]
    pub fn attach_with(config: &CaptureConfig, sizes: &[(&'static str, u32)]) -> Result<Self, CaptureError> {
        Self::attach_at(config, sizes, None)
    }

    /// As [`attach_with`](Self::attach_with), with the hooks of cgroups at that cgroup, if it isn't the root: tests of hooks
    /// that refuse every cgroup of the host from some moment on, other tests' too.
    #[doc(hidden)]
    pub fn attach_at(
        config: &CaptureConfig,
        sizes: &[(&'static str, u32)],
        place: Option<&Path>,
    ) -> Result<Self, CaptureError> {
        check_capabilities()?;
        Self::attach_in(Some(bpffs::Folder::open(&config.bpffs)?), config, sizes, place)
    }

    fn attach_in(
        folder: Option<bpffs::Folder>,
        config: &CaptureConfig,
        sizes: &[(&'static str, u32)],
        place: Option<&Path>,
    ) -> Result<Self, CaptureError> {
        check_capabilities()?;
        let cgroup_root = match &config.cgroup_root {
            Some(root) if cgroup::is_cgroup2(root) => root.clone(),
            Some(root) => {
                return Err(CaptureError::Cgroup {
                    path: root.clone(),
                    reason: "not the root of a cgroup v2 hierarchy; leave `cgroup_root` out to have it looked up"
                        .to_owned(),
                });
            }
            None => cgroup::cgroup_root()?,
        };
        leftovers::remove(&cgroup_root, &config.bpffs);
        let mut made = Made::default();
        let booted_ns = commands::booted_ns().map_err(CaptureError::system("reading the clocks"))?;
        let mut ebpf = hooks::load(folder.as_ref(), sizes, booted_ns, &mut made)?;
        let place = place.unwrap_or(&cgroup_root).to_owned();
        let hooks = hooks::attach(&mut ebpf, folder.as_ref(), &place, config.lsm, &mut made)?;

        let log = EbpfLogger::init_with_logger(&mut ebpf, Forward::default())
            .map_err(|error| CaptureError::Load { reason: format!("the hooks' log: {error}") })?;
        let counters = Counters::new(take(&mut ebpf, "COUNTERS")?);
        let commands_lost: Array<MapData, u64> = take(&mut ebpf, "COMMANDS_LOST")?;
        let told = commands_lost.get(&0, 0).map_err(CaptureError::map("reading how many commands were lost"))?;
        let probes = Probes::default();
        let ring: RingBuf<MapData> = take(&mut ebpf, "COMMAND_EVENTS")?;
        let arguments = Arc::<Arguments>::default();
        let capture = Self {
            cgroup_root: cgroup_root.clone(),
            enrolled: Mutex::new(take(&mut ebpf, "ENROLLED")?),
            unenrolled: Mutex::new(take(&mut ebpf, "UNENROLLED")?),
            held: Some(PendingCgroups::new(take(&mut ebpf, "HELD_EVENTS")?)),
            rules: Mutex::new(Tables { states: take(&mut ebpf, "RULES")?, start: take(&mut ebpf, "RULES_START")? }),
            bound_ids: Mutex::new(take(&mut ebpf, "BOUND_IDS")?),
            proxies: Mutex::new(Proxies {
                endpoints: take(&mut ebpf, "PROXIES")?,
                any: take(&mut ebpf, "ANY_PROXY")?,
                captured: BTreeSet::new(),
            }),
            listeners: Mutex::new(take(&mut ebpf, "LISTENERS")?),
            home: Mutex::new(take(&mut ebpf, "HOME")?),
            namespaces: Mutex::default(),
            pending: take(&mut ebpf, "PENDING")?,
            origins: Origins::new(take(&mut ebpf, "ORIGINS")?, config.mask.clone(), arguments.clone()),
            commands: Some(Commands::new(
                ring,
                Losses::new(counters.clone(), told, hooks::Misses::of(&ebpf)?),
                Shares::new(take(&mut ebpf, "COMMANDS_WRITTEN")?, take(&mut ebpf, "COMMANDS_READ")?),
                config.mask.clone(),
                arguments,
                probes.clone(),
                cgroup_root.clone(),
            )),
            probes,
            commands_lost: Mutex::new(commands_lost),
            running: Mutex::new(take(&mut ebpf, "COMMANDS")?),
            gone: Mutex::new(Gone::new(booted_ns)),
            counters,
            place,
            hooks,
            log: Some(log),
            folder,
        };
        capture.withdraw_removed()?;
        capture.remember_commands()?;
        made.keep();
        Ok(capture)
    }

    /// Passes the hooks' log lines on to tracing (target `chaperone_ebpf`), in a task of the current tokio runtime.
    /// Later calls do nothing.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O.
    pub fn forward_log(&mut self) -> Result<Option<tokio::task::JoinHandle<()>>, CaptureError> {
        self.log.take().map(kernel_log::forward).transpose()
    }

    /// Redirects the connections of all processes in this cgroup and below, from now on. Those that are there already and
    /// would have been redirected are destroyed; which ones is told. (A connection that a process took along from
    /// another cgroup isn't among them: it is guarded from its first use on, by the LSM's hook.)
    pub fn enroll(&self, cgroup: CgroupId) -> Result<Vec<PreexistingConnection>, CaptureError> {
        self.set(cgroup, ENROLLED)?;
        let path = cgroup::cgroup_path(&self.cgroup_root, cgroup)?;
        preexisting::destroy(
            &self.cgroup_root.join(path.trim_start_matches('/')),
            &self.exempted()?,
            &self.proxies.lock().captured,
        )
    }

    /// As [`enroll`](Self::enroll), as if the kernel couldn't destroy connections: tests of the guard.
    #[doc(hidden)]
    pub fn enroll_only(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        self.set(cgroup, ENROLLED)
    }

    /// Leaves this cgroup and everything below it alone, though it is below an enrolled one. For the daemon's own.
    pub fn exempt(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        self.set(cgroup, EXEMPT)
    }

    /// Takes back what was said of this cgroup itself. No error if nothing was.
    pub fn withdraw(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        match self.enrolled.lock().remove(&cgroup.0) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CaptureError::map(format!("withdrawing the cgroup {}", cgroup.0))(error)),
        }
    }

    pub(crate) fn exempted(&self) -> Result<BTreeSet<CgroupId>, CaptureError> {
        Ok(self.flagged(|flags| flags & EXEMPT != 0)?.into_iter().collect())
    }

    /// The enrolled cgroups, those of earlier daemons too, and held ones; exempt ones are not among them.
    pub fn enrolled(&self) -> Result<Vec<CgroupId>, CaptureError> {
        self.flagged(|flags| flags & EXEMPT == 0)
    }

    pub(crate) fn flagged(&self, wanted: impl Fn(u32) -> bool) -> Result<Vec<CgroupId>, CaptureError> {
        self.enrolled
            .lock()
            .iter()
            .filter_map(|entry| match entry {
                Ok((id, flags)) => wanted(flags).then_some(Ok(CgroupId(id))),
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()
            .map_err(CaptureError::map("listing the enrolled cgroups"))
    }

    /// Tells where accepted connections came from.
    pub fn origins(&self) -> Origins {
        self.origins.clone()
    }

    /// What the hooks counted.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The commands that agents execute; `None` if somebody reads them already. What was executed while there was no
    /// daemon comes first.
    pub fn take_commands(&mut self) -> Option<Commands> {
        self.commands.take()
    }

    /// How many processes are in the middle of a command.
    pub fn commands_running(&self) -> Result<usize, CaptureError> {
        let mut running = 0;
        for key in self.running.lock().keys() {
            key.map_err(CaptureError::map("counting the commands"))?;
            running += 1;
        }
        Ok(running)
    }

    /// Remembers, beyond the daemon's end, that so many more losses of commands are recorded.
    pub fn commands_lost_recorded(&self, more: u64) -> Result<(), CaptureError> {
        let failed = CaptureError::map;
        let mut map = self.commands_lost.lock();
        let told = map.get(&0, 0).map_err(failed("reading how many commands were lost"))?;
        map.set(0, told.saturating_add(more), 0).map_err(failed("noting how many commands were lost"))
    }

    /// How many redirected connections are in the middle of their handshake.
    pub fn pending(&self) -> Result<usize, CaptureError> {
        let mut pending = 0;
        for key in self.pending.keys() {
            key.map_err(CaptureError::map("counting the pending connections"))?;
            pending += 1;
        }
        Ok(pending)
    }

    /// The later hooks, of the LSM and of devices, that this kernel doesn't take, with its reasons; none if they are
    /// [required](LsmHooks::Required).
    pub fn missing_hooks(&self) -> &[(&'static str, String)] {
        &self.hooks.missing
    }

    pub(crate) fn attached(&self) -> &[Attached] {
        &self.hooks.attached
    }

    /// Takes a hook off behind the daemon's back: tests of who notices.
    #[doc(hidden)]
    pub fn detach_hook(&self, hook: &str) -> io::Result<()> {
        self.hooks.links.iter().find(|link| link.hook == hook).ok_or(io::ErrorKind::NotFound)?.detach()
    }

    /// What is wrong with the hooks now, and what to do: some of them are in force no more, or their pins are gone, so that
    /// they end with this process. `None` if nothing is.
    pub fn trouble(&self) -> Option<String> {
        let effective = |Attached { kind, program, .. }: &Attached| -> io::Result<bool> {
            Ok(sys::effective_programs(File::open(&self.place)?.as_fd(), *kind)?.contains(program))
        };
        let mut off = Vec::new();
        for attached in &self.hooks.attached {
            match effective(attached) {
                Ok(true) => {}
                Ok(false) => off.push(attached.hook),
                Err(error) => {
                    return Some(format!("it can't be asked whether `{}` is in force: {error}", attached.hook));
                }
            }
        }
        if !off.is_empty() {
            return Some(format!(
                "not in force: {}: agents get past the daemon, unseen; `systemctl restart chaperone` attaches them again, \
                 `bpftool cgroup tree` says what is there",
                off.join(", ")
            ));
        }
        let folder = self.folder.as_ref()?;
        let pinned = |link: &&hooks::Link| !folder.link(link.hook).exists();
        let gone: Vec<_> = self.hooks.links.iter().filter(pinned).map(|link| link.hook).collect();
        (!gone.is_empty()).then(|| {
            format!(
                "no longer pinned in {}: {}: they are in force for as long as this daemon runs, and agents are free when it \
                 ends; `systemctl restart chaperone` pins them again",
                folder.path.display(),
                gone.join(", ")
            )
        })
    }

    /// Where cgroup v2 is mounted.
    pub fn cgroup_root(&self) -> &Path {
        &self.cgroup_root
    }

    /// Detaches the hooks and forgets all enrolments: processes of agents are free again.
    pub fn detach(self) -> Result<(), CaptureError> {
        let Self { place, hooks: Hooks { attached, links, .. }, folder, .. } = self;
        folder.map_or(Ok(()), bpffs::Folder::remove)?;
        drop(links);
        // The kernel takes a program off in its own time after the last pin of its link is gone (kernel/bpf/syscall.c,
        // `bpf_link_put`).
        let place = File::open(place).map_err(CaptureError::system("opening the root of cgroup v2"))?;
        let began = Instant::now();
        for Attached { kind, program, .. } in attached {
            let in_force = || sys::effective_programs(place.as_fd(), kind).map(|programs| programs.contains(&program));
            while in_force().map_err(CaptureError::system("asking which hooks are in force"))? {
                if began.elapsed() > DETACHING {
                    return Err(CaptureError::Load {
                        reason: "the hooks are off, and yet in force after a minute".into(),
                    });
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Withdraws the cgroups that were removed while no daemon ran: ids are never used again, and places are limited.
    #[doc(hidden)]
    pub fn withdraw_removed(&self) -> Result<(), CaptureError> {
        let ids: Vec<_> = self
            .enrolled
            .lock()
            .keys()
            .collect::<Result<_, _>>()
            .map_err(CaptureError::map("listing the enrolled cgroups"))?;
        for id in ids.into_iter().map(CgroupId) {
            match cgroup::cgroup_path(&self.cgroup_root, id) {
                // Nothing else means that it is gone; fs/fhandle.c, `handle_to_path`.
                Err(CaptureError::CgroupGone { source, .. }) if source.raw_os_error() == Some(libc::ESTALE) => {
                    self.withdraw(id)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn set(&self, cgroup: CgroupId, flags: u32) -> Result<(), CaptureError> {
        // The hooks don't look deeper: an enrolment there would do nothing.
        let path = cgroup::cgroup_path(&self.cgroup_root, cgroup)?;
        if cgroup::level(&path) > MAX_CGROUP_LEVEL as usize {
            return Err(CaptureError::Cgroup {
                path: path.into(),
                reason: format!("more than {MAX_CGROUP_LEVEL} levels deep; use one nearer to the root"),
            });
        }
        self.enrolled
            .lock()
            .insert(cgroup.0, flags, 0)
            .map_err(CaptureError::map(format!("enrolling the cgroup {path} (at most {MAX_ENROLLED} can be)")))
    }
}

/// What `chaperone disable` does: detaches the hooks that a daemon left and forgets all enrolments. An error if a daemon
/// runs; `false` if there was nothing.
pub fn remove_pins(bpffs: &Path) -> Result<bool, CaptureError> {
    match bpffs::Folder::existing(bpffs)? {
        Some(folder) => folder.remove().map(|()| true),
        None => Ok(false),
    }
}

/// For the hooks' `PENDING`.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PendingKey(#[allow(dead_code)] Tuple); // only counted

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl Pod for PendingKey {}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, CaptureError> {
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| CaptureError::Load { reason: format!("BUG: the object has no map {name}") })?;
    M::try_from(map).map_err(CaptureError::map(format!("using the hooks' map {name}")))
}

/// Linux's numbers of the capabilities needed here, with their names.
const CAPABILITIES: [(u32, &str); 4] =
    [(2, "CAP_DAC_READ_SEARCH"), (12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

fn check_capabilities() -> Result<(), CaptureError> {
    let status = fs::read_to_string("/proc/self/status").map_err(CaptureError::system("reading /proc/self/status"))?;
    let missing = missing_capabilities(&status);
    if missing.is_empty() { Ok(()) } else { Err(CaptureError::NotPrivileged { missing: missing.join(", ") }) }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES.iter().filter(|(number, _)| effective & (1 << number) == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t0000000000001004\n"), ["CAP_SYS_ADMIN", "CAP_BPF"]);
        assert_eq!(missing_capabilities("").len(), CAPABILITIES.len());
    }
}
