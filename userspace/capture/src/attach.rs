//! Loading the hooks, attaching them so that they outlive the daemon, and enrolling cgroups.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{HashMap, Map, MapData, MapError, MapInfo, SockHash},
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, LinkError},
    },
};
use aya_log::EbpfLogger;
use chaperone_ebpf_abi::{ENROLLED, EXEMPT, MAX_CGROUP_LEVEL, Tuple};
use chaperone_model::CgroupId;

use crate::{
    CaptureError, Counters, ListenPorts, Listeners, Origins, bpffs, cgroup,
    kernel_log::{self, Forward},
    listen::{self, Key},
    origin::Record,
    sys,
};

/// The kernel side, as `cargo xtask bpf` built it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/chaperone.bpf.o");

/// The hooks, in the order in which they are attached: what moves origins first, so that nothing is redirected before.
const HOOKS: [&str; 7] = ["handshake", "getpeername4", "getpeername6", "sendmsg4", "sendmsg6", "connect4", "connect6"];

/// Maps that outlive the daemon, with the sizes of key and value.
const PINNED: [(&str, u32, u32); 2] = [("ENROLLED", 8, 4), ("COUNTERS", 4, 8)];

/// What capturing needs to know.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The daemon's own folder in the BPF filesystem, such as `/sys/fs/bpf/chaperone`.
    pub bpffs: PathBuf,
    /// Where cgroup v2 is mounted; `None` to look it up.
    pub cgroup_root: Option<PathBuf>,
}

/// The attached hooks. Dropping it leaves them attached: enrolled processes are refused until a daemon listens again.
pub struct Capture {
    folder: bpffs::Folder,
    cgroup_root: PathBuf,
    enrolled: Mutex<HashMap<MapData, u64, u32>>,
    listeners: Mutex<SockHash<MapData, Key>>,
    pending: HashMap<MapData, PendingKey, Record>,
    origins: Origins,
    counters: Counters,
    log: Option<EbpfLogger<Forward>>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("folder", &self.folder.path)
            .field("cgroup_root", &self.cgroup_root)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Loads the hooks and attaches them at the root of cgroup v2, in the place of those that an earlier daemon left:
    /// each is exchanged in one step, so that there is no moment without. Enrolments are kept from then. Nothing is
    /// redirected before [`listen`](Self::listen); until then, enrolled processes are refused.
    pub fn attach(config: &CaptureConfig) -> Result<Self, CaptureError> {
        Self::attach_with(config, &[])
    }

    /// As [`attach`](Self::attach), with other sizes for some maps: tests of full maps.
    #[doc(hidden)]
    pub fn attach_with(config: &CaptureConfig, sizes: &[(&'static str, u32)]) -> Result<Self, CaptureError> {
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
        let folder = bpffs::Folder::open(&config.bpffs)?;
        let mut made = Made::default();
        let mut ebpf = load(&folder, sizes, &mut made)?;
        for hook in HOOKS {
            attach_hook(&mut ebpf, hook, &folder, &cgroup_root, &mut made)?;
        }

        let log = EbpfLogger::init_with_logger(&mut ebpf, Forward::default())
            .map_err(|error| CaptureError::Load { reason: format!("the hooks' log: {error}") })?;
        let capture = Self {
            cgroup_root,
            enrolled: Mutex::new(take(&mut ebpf, "ENROLLED")?),
            listeners: Mutex::new(take(&mut ebpf, "LISTENERS")?),
            pending: take(&mut ebpf, "PENDING")?,
            origins: Origins::new(take(&mut ebpf, "ORIGINS")?),
            counters: Counters::new(take(&mut ebpf, "COUNTERS")?),
            log: Some(log),
            folder,
        };
        capture.forget_removed()?;
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

    /// Opens the listeners in the calling thread's network namespace and has the hooks point at them, and no more at
    /// those of an earlier call there.
    pub fn listen(&self, ports: ListenPorts) -> Result<Listeners, CaptureError> {
        listen::listen(&mut lock(&self.listeners), ports)
    }

    /// Redirects the connections of all processes in this cgroup and below, from now on.
    pub fn enroll(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        self.set(cgroup, ENROLLED)
    }

    /// Leaves this cgroup and everything below it alone, though it is below an enrolled one. For the daemon's own.
    pub fn exempt(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        self.set(cgroup, EXEMPT)
    }

    /// Takes back what was said of this cgroup itself. No error if nothing was.
    pub fn withdraw(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        match lock(&self.enrolled).remove(&cgroup.0) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CaptureError::map(format!("withdrawing the cgroup {}", cgroup.0))(error)),
        }
    }

    /// The enrolled cgroups, those of earlier daemons too; exempt ones are not among them.
    pub fn enrolled(&self) -> Result<Vec<CgroupId>, CaptureError> {
        lock(&self.enrolled)
            .iter()
            .filter_map(|entry| match entry {
                Ok((id, flags)) => (flags & EXEMPT == 0).then_some(Ok(CgroupId(id))),
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

    /// How many redirected connections are in the middle of their handshake.
    pub fn pending(&self) -> Result<usize, CaptureError> {
        let mut pending = 0;
        for key in self.pending.keys() {
            key.map_err(CaptureError::map("counting the pending connections"))?;
            pending += 1;
        }
        Ok(pending)
    }

    /// Where cgroup v2 is mounted.
    pub fn cgroup_root(&self) -> &Path {
        &self.cgroup_root
    }

    /// Detaches the hooks and forgets all enrolments: processes of agents are free again.
    pub fn detach(self) -> Result<(), CaptureError> {
        self.folder.remove()
    }

    /// Withdraws the cgroups that were removed while no daemon ran: ids are never used again, and places are limited.
    fn forget_removed(&self) -> Result<(), CaptureError> {
        let ids: Vec<_> = lock(&self.enrolled)
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

    fn set(&self, cgroup: CgroupId, flags: u32) -> Result<(), CaptureError> {
        // The hooks don't look deeper: an enrolment there would do nothing.
        let path = cgroup::cgroup_path(&self.cgroup_root, cgroup)?;
        if cgroup::level(&path) > MAX_CGROUP_LEVEL as usize {
            return Err(CaptureError::Cgroup {
                path: path.into(),
                reason: format!("more than {MAX_CGROUP_LEVEL} levels deep; use one nearer to the root"),
            });
        }
        lock(&self.enrolled)
            .insert(cgroup.0, flags, 0)
            .map_err(CaptureError::map(format!("enrolling the cgroup {path} (at most 16384 can be)")))
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

/// The pins that this attempt made, taken away again if it fails: on a first start, nothing is left half set up.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for pin in &self.0 {
            if let Err(error) = fs::remove_file(pin) {
                tracing::warn!(pin = %pin.display(), %error, "a pin could not be removed");
            }
        }
    }
}

/// For the hooks' `PENDING`.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PendingKey(#[allow(dead_code)] Tuple); // only counted

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl Pod for PendingKey {}

fn load(folder: &bpffs::Folder, sizes: &[(&'static str, u32)], made: &mut Made) -> Result<Ebpf, CaptureError> {
    let mut loader = EbpfLoader::new();
    let pins = PINNED.map(|pinned| (pinned, folder.map(pinned.0)));
    for ((map, key, value), pin) in &pins {
        if pin.exists() {
            // aya takes what is pinned as it is.
            let info = MapInfo::from_pin(pin).map_err(CaptureError::map(format!("opening {}", pin.display())))?;
            if (info.key_size(), info.value_size()) != (*key, *value) {
                return Err(CaptureError::Load { reason: format!("{} was made by another version", pin.display()) });
            }
        } else {
            made.0.push(pin.clone());
        }
        loader.map_pin_path(map, pin.as_path());
    }
    for (map, size) in sizes {
        loader.map_max_entries(map, *size);
    }
    let ebpf = loader.load(OBJECT);
    // Those that were not made after all.
    made.0.retain(|pin| pin.exists());
    ebpf.map_err(|error| CaptureError::Load { reason: chain(&error) })
}

fn attach_hook(
    ebpf: &mut Ebpf,
    hook: &'static str,
    folder: &bpffs::Folder,
    cgroup_root: &Path,
    made: &mut Made,
) -> Result<(), CaptureError> {
    let failed = |reason: String| CaptureError::Attach { hook, cgroup: cgroup_root.to_owned(), reason };
    let program = ebpf.program_mut(hook).ok_or_else(|| failed("BUG: it is not in the object".to_owned()))?;
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => return Err(failed("BUG: it is of another type".to_owned())),
    }
    .map_err(|error| CaptureError::Load { reason: format!("{hook}: {}", chain(&error)) })?;

    let pin = folder.link(hook);
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(|error| failed(error.to_string()))?;
    match sys::open_pinned(&path) {
        Ok(link) => {
            let program: BorrowedFd<'_> = match program {
                Program::CgroupSockAddr(program) => program.fd(),
                Program::SockOps(program) => program.fd(),
                _ => unreachable!("BUG: checked above"),
            }
            .map_err(|error| failed(chain(&error)))?
            .as_fd();
            return sys::update_link(link.as_fd(), program).map_err(|error| failed(error.to_string()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(format!("{}: {error}", pin.display()))),
    }

    let link = first_link(program, cgroup_root).map_err(failed)?;
    link.pin(&pin).map_err(|error| failed(chain(&error)))?;
    made.0.push(pin);
    Ok(())
}

fn first_link(program: &mut Program, cgroup_root: &Path) -> Result<FdLink, String> {
    fn link<L: TryInto<FdLink, Error = LinkError>>(taken: Result<L, ProgramError>) -> Result<FdLink, String> {
        taken.map_err(|error| chain(&error))?.try_into().map_err(|error: LinkError| chain(&error))
    }
    let cgroup = File::open(cgroup_root).map_err(|error| error.to_string())?;
    // Links are "multi" by themselves: other programs at the root go on.
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSockAddr(program) => link(program.attach(cgroup, mode).and_then(|id| program.take_link(id))),
        Program::SockOps(program) => link(program.attach(cgroup, mode).and_then(|id| program.take_link(id))),
        _ => Err("BUG: it is of another type".to_owned()),
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, CaptureError> {
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| CaptureError::Load { reason: format!("BUG: the object has no map {name}") })?;
    M::try_from(map).map_err(CaptureError::map(format!("using the hooks' map {name}")))
}

/// What a poisoned lock guards is a map of the kernel's, which is never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
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
