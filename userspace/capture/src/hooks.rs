//! Loading the hooks, and attaching them so that they outlive the daemon.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{
        CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError,
        links::{FdLink, LinkError},
    },
};

use crate::{CaptureError, bpffs, btf::KernelOffsets, sys};

/// The kernel side, as `cargo xtask bpf` built it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/chaperone.bpf.o");

/// The hooks, in the order in which they are attached: what moves origins first, so that nothing is redirected before.
const HOOKS: [&str; 20] = [
    "cgroup_released",
    "cgroup_made",
    "command_ended",
    "command_forked",
    "command_began",
    "again_ended",
    "again_forked",
    "again_began",
    "handshake",
    "getpeername4",
    "getpeername6",
    "sock_create",
    "device",
    "socket_create",
    "socket_sendmsg",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
    "egress",
];

/// The tracepoints among them.
const TRACEPOINTS: [(&str, &str); 8] = [
    ("again_began", "sched_process_exec"),
    ("again_ended", "sched_process_exit"),
    ("again_forked", "sched_process_fork"),
    ("cgroup_made", "cgroup_mkdir"),
    ("cgroup_released", "cgroup_release"),
    ("command_began", "sched_process_exec"),
    ("command_ended", "sched_process_exit"),
    ("command_forked", "sched_process_fork"),
];

/// Those among them that kernels before 6.1 may lack: the first one, and those that need `bpf` among the kernel's LSMs.
const LATER_HOOKS: [&str; 3] = ["device", "socket_create", "socket_sendmsg"];

/// The hooks of cgroups and their `enum bpf_attach_type`.
pub(crate) const ATTACH_TYPES: [(&str, u32); 10] = [
    ("egress", 1),
    ("sock_create", 2),
    ("handshake", 3),
    ("device", 6),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("getpeername4", 29),
    ("getpeername6", 30),
];

/// A hook that is attached at the root of cgroup v2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    pub(crate) hook: &'static str,
    /// `enum bpf_attach_type`.
    pub(crate) kind: u32,
    /// The program's id.
    pub(crate) program: u32,
}

/// What keeps a hook attached, as long as this process has it: somebody may take the pins away.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) hook: &'static str,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// Mostly pinned, too.
    Pinned(OwnedFd),
    /// By nothing but this.
    Alone(#[allow(dead_code)] FdLink), // only held
}

impl Link {
    /// Tests: attached no more, though the link is there.
    pub(crate) fn detach(&self) -> io::Result<()> {
        match &self.held {
            Held::Pinned(link) => sys::detach_link(link.as_fd()),
            Held::Alone(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// What was attached.
pub(crate) struct Hooks {
    /// Those of cgroups.
    pub(crate) attached: Vec<Attached>,
    pub(crate) missing: Missing,
    pub(crate) links: Vec<Link>,
}

/// The later hooks that the kernel doesn't take, with its reasons.
pub(crate) type Missing = Vec<(&'static str, String)>;

/// Whether the hooks of the LSM, and that of devices, may be missing. They close ways that need an accomplice outside the
/// enrolled cgroups, `CAP_NET_RAW` or a TUN device; everything else is closed without them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LsmHooks {
    /// Without them, nothing is attached.
    #[default]
    Required,
    /// Without them, [`Capture::missing_hooks`](crate::Capture::missing_hooks) says so.
    WhereAvailable,
}

/// Maps that outlive the daemon, with the sizes of key and value: what the hooks were told, and what they have to tell.
const PINNED: [(&str, u32, u32); 14] = [
    ("ENROLLED", 8, 4),
    ("UNENROLLED", 4, 8),
    ("RULES", 4, 516),
    ("RULES_START", 4, 4),
    ("BOUND_IDS", 8, 4),
    ("PROXIES", 24, 4),
    ("ANY_PROXY", 4, 4),
    ("STAMPS", 4, 16),
    ("COUNTERS", 4, 8),
    ("COMMANDS", 4, 32),
    ("COMMAND_EVENTS", 0, 0),
    ("COMMANDS_LOST", 4, 8),
    ("COMMANDS_READ", 8, 8),
    ("COMMANDS_WRITTEN", 8, 8),
];

/// Those that outlive it for the sake of connections that wait for the next one, in sockets that the service manager
/// keeps. By another version's they can't be told, and wait in vain: all of them are made anew then.
const CONNECTIONS: [(&str, u32, u32); 5] =
    [("LISTENERS", 16, 4), ("HOME", 4, 16), ("DIALLED", 4, 144), ("PENDING", 56, 144), ("ORIGINS", 4, 144)];

/// Whether a map of the hooks' has that name, cut as the kernel cuts it.
pub(crate) fn is_map(name: &str) -> bool {
    PINNED.iter().chain(&CONNECTIONS).any(|(own, ..)| own[..own.len().min(15)] == *name)
}

/// What passed the last of the programs at the commands' tracepoints by, since they were loaded: no more than that was
/// seen by none.
#[derive(Debug)]
pub(crate) struct Misses(Vec<OwnedFd>);

impl Misses {
    pub(crate) fn of(ebpf: &Ebpf) -> Result<Self, CaptureError> {
        let failed = |error: ProgramError| CaptureError::Load { reason: chaperone_model::with_causes(&error) };
        let programs = ["again_began", "again_forked", "again_ended"].map(|hook| {
            let fd = ebpf.program(hook).expect("BUG: it was there").fd().map_err(failed)?;
            fd.as_fd().try_clone_to_owned().map_err(CaptureError::system("keeping a program"))
        });
        programs.into_iter().collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn count(&self) -> io::Result<u64> {
        self.0.iter().map(|program| sys::recursion_misses(program.as_fd())).sum()
    }
}

/// Loads the object, with the maps that an earlier daemon left there; without a folder, nothing is pinned.
pub(crate) fn load(
    folder: Option<&bpffs::Folder>,
    sizes: &[(&'static str, u32)],
    booted_ns: u64,
    made: &mut Made,
) -> Result<Ebpf, CaptureError> {
    let offsets = KernelOffsets::read()?;
    let mut loader = EbpfLoader::new();
    loader.override_global("OFFSETS", &offsets, true).override_global("BOOTED_NS", &booted_ns, true);
    let in_folder = |maps: &[(&'static str, u32, u32)]| -> Vec<_> {
        folder.into_iter().flat_map(|folder| maps.iter().map(|pinned| (*pinned, folder.map(pinned.0)))).collect()
    };
    let (pins, connections) = (in_folder(&PINNED), in_folder(&CONNECTIONS));
    let mut whole = true;
    for (pinned, pin) in &connections {
        whole &= pin.exists() && fits(pinned, pin)?;
    }
    if !whole {
        for (_, pin) in connections.iter().filter(|(_, pin)| pin.exists()) {
            fs::remove_file(pin).map_err(CaptureError::system(format!("removing {}", pin.display())))?;
        }
    }
    for (pinned, pin) in pins.iter().chain(&connections) {
        if !pin.exists() {
            made.0.push(pin.clone());
        } else if !fits(pinned, pin)? {
            return Err(CaptureError::Load { reason: format!("{} was made by another version", pin.display()) });
        }
        loader.map_pin_path(pinned.0, pin.as_path());
    }
    for (map, size) in sizes {
        loader.map_max_entries(map, *size);
    }
    let ebpf = loader.load(OBJECT);
    // Those that were not made after all.
    made.0.retain(|pin| pin.exists());
    ebpf.map_err(|error| CaptureError::Load { reason: chaperone_model::with_causes(&error) })
}

/// Whether what is pinned there is as this version has it; aya takes it as it is.
fn fits((_, key, value): &(&str, u32, u32), pin: &Path) -> Result<bool, CaptureError> {
    let info = MapInfo::from_pin(pin).map_err(CaptureError::map(format!("opening {}", pin.display())))?;
    Ok((info.key_size(), info.value_size()) == (*key, *value))
}

/// Attaches all hooks, each in the place of the one that an earlier daemon left, without a moment between. Those of the
/// later ones that this kernel doesn't take may be missing if `lsm` says so.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    folder: Option<&bpffs::Folder>,
    cgroup_root: &Path,
    lsm: LsmHooks,
    made: &mut Made,
) -> Result<Hooks, CaptureError> {
    let (mut attached, mut missing, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for hook in HOOKS {
        match attach_one(ebpf, hook, folder, cgroup_root, made) {
            Err(error) if lsm == LsmHooks::WhereAvailable && LATER_HOOKS.contains(&hook) => {
                missing.push((hook, chaperone_model::with_causes(&error)));
                continue;
            }
            held => links.push(Link { hook, held: held? }),
        }
        if let Some((_, kind)) = ATTACH_TYPES.iter().find(|(name, _)| *name == hook) {
            let info = ebpf.program(hook).expect("BUG: it was there").info();
            let program =
                info.map_err(|error| CaptureError::Load { reason: chaperone_model::with_causes(&error) })?.id();
            attached.push(Attached { hook, kind: *kind, program });
        }
    }
    Ok(Hooks { attached, missing, links })
}

fn attach_one(
    ebpf: &mut Ebpf,
    hook: &'static str,
    folder: Option<&bpffs::Folder>,
    cgroup_root: &Path,
    made: &mut Made,
) -> Result<Held, CaptureError> {
    let pin = || folder.map(|folder| folder.link(hook));
    let failed = |reason: String| CaptureError::Attach { hook, cgroup: cgroup_root.to_owned(), reason };
    let program = ebpf.program_mut(hook).ok_or_else(|| failed("BUG: it is not in the object".to_owned()))?;
    match program {
        Program::CgroupDevice(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::Lsm(program) => {
            let loaded = Btf::from_sys_fs().map_err(Into::into).and_then(|btf| program.load(hook, &btf));
            return loaded
                .map_err(|error| chaperone_model::with_causes(&error))
                .and_then(|()| {
                    let program = ebpf.program_mut(hook).expect("BUG: it was there");
                    place(program, hook, pin(), cgroup_root, made)
                })
                .map_err(|reason| CaptureError::Lsm { hook, reason });
        }
        Program::RawTracePoint(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => return Err(failed("BUG: it is of another type".to_owned())),
    }
    .map_err(|error| CaptureError::Load { reason: format!("{hook}: {}", chaperone_model::with_causes(&error)) })?;
    place(program, hook, pin(), cgroup_root, made).map_err(failed)
}

/// Attaches a loaded program, pinned there if anywhere.
fn place(
    program: &mut Program,
    hook: &'static str,
    pin: Option<PathBuf>,
    cgroup_root: &Path,
    made: &mut Made,
) -> Result<Held, String> {
    let Some(pin) = pin else {
        return match program {
            Program::CgroupDevice(_) => link_device(program, hook, cgroup_root).map(Held::Pinned),
            _ => link(program, hook, cgroup_root).map(Held::Alone),
        };
    };
    let text = |error: io::Error| format!("{}: {error}", pin.display());
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    let earlier = match sys::open_pinned(&path) {
        Ok(link) => Some(link),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(text(error)),
    };
    match (earlier, &program) {
        (None, Program::CgroupDevice(_)) => {
            let link = link_device(program, hook, cgroup_root)?;
            sys::pin(link.as_fd(), &path).map_err(text)?;
            made.0.push(pin.clone());
        }
        (None, _) => {
            link(program, hook, cgroup_root)?.pin(&pin).map_err(|error| chaperone_model::with_causes(&error))?;
            made.0.push(pin.clone());
        }
        // The kernel can't exchange the program of an LSM's or a tracepoint's link (kernel/bpf/syscall.c,
        // `bpf_tracing_link_lops`, `bpf_raw_tp_link_lops`). Both are attached for a moment, and what one of them refuses
        // is refused; what one of them has told, the other doesn't tell again.
        (Some(_), Program::Lsm(_) | Program::RawTracePoint(_)) => {
            // Names with a dot in them are refused (kernel/bpf/inode.c, `bpf_lookup`).
            let new = pin.with_file_name(format!("new_{hook}"));
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(text(error)),
                _ => {}
            }
            link(program, hook, cgroup_root)?.pin(&new).map_err(|error| chaperone_model::with_causes(&error))?;
            fs::rename(&new, &pin).map_err(text)?;
        }
        (Some(earlier), _) => {
            let program: BorrowedFd<'_> = program.fd().map_err(|error| chaperone_model::with_causes(&error))?.as_fd();
            sys::update_link(earlier.as_fd(), program).map_err(text)?;
        }
    }
    sys::open_pinned(&path).map(Held::Pinned).map_err(text)
}

fn link_device(program: &Program, hook: &str, cgroup_root: &Path) -> Result<OwnedFd, String> {
    let cgroup = File::open(cgroup_root).map_err(|error| error.to_string())?;
    let kind = ATTACH_TYPES.iter().find(|(name, _)| *name == hook).expect("BUG: a hook without a type").1;
    let program = program.fd().map_err(|error| chaperone_model::with_causes(&error))?.as_fd();
    sys::link_to_cgroup(program, cgroup.as_fd(), kind).map_err(|error| error.to_string())
}

fn link(program: &mut Program, hook: &'static str, cgroup_root: &Path) -> Result<FdLink, String> {
    fn taken<L: TryInto<FdLink, Error = LinkError>>(link: Result<L, ProgramError>) -> Result<FdLink, String> {
        link.map_err(|error| chaperone_model::with_causes(&error))?
            .try_into()
            .map_err(|error: LinkError| chaperone_model::with_causes(&error))
    }
    let cgroup = File::open(cgroup_root).map_err(|error| error.to_string())?;
    // Links are "multi" by themselves: other programs at the root go on.
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSkb(program) => {
            let attached = program.attach(cgroup, CgroupSkbAttachType::Egress, mode);
            taken(attached.and_then(|id| program.take_link(id)))
        }
        Program::CgroupSock(program) => taken(program.attach(cgroup, mode).and_then(|id| program.take_link(id))),
        Program::CgroupSockAddr(program) => taken(program.attach(cgroup, mode).and_then(|id| program.take_link(id))),
        Program::Lsm(program) => program
            .attach()
            .and_then(|id| program.take_link(id))
            .map(Into::into)
            .map_err(|error| chaperone_model::with_causes(&error)),
        Program::RawTracePoint(program) => {
            let (_, event) =
                TRACEPOINTS.iter().find(|(name, _)| *name == hook).expect("BUG: a tracepoint without event");
            program
                .attach(event)
                .and_then(|id| program.take_link(id))
                .map(Into::into)
                .map_err(|error| chaperone_model::with_causes(&error))
        }
        Program::SockOps(program) => taken(program.attach(cgroup, mode).and_then(|id| program.take_link(id))),
        _ => Err("BUG: it is of another type".to_owned()),
    }
}

/// The pins that this attempt made, taken away again if it fails: on a first start, nothing is left half set up.
#[derive(Default)]
pub(crate) struct Made(Vec<PathBuf>);

impl Made {
    /// It has succeeded.
    pub(crate) fn keep(mut self) {
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
