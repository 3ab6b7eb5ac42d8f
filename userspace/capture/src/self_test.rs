//! Proof that the hooks do what they are for: a process of the daemon's own, in a cgroup and a network namespace made for
//! it, tries what an agent may not. Nothing that it sends can leave that namespace, whether the hooks work or not.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};

use chaperone_ebpf_abi::STREAM_PORTS;
use chaperone_model::CgroupId;

use crate::{Capture, CaptureError, ListenPorts, Listeners, cgroup_id, leftovers::SELF_TEST, netns, sys};

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Check {
    /// What must be so.
    pub what: &'static str,
    /// What was found instead, and what to do about it.
    pub result: Result<(), String>,
}

/// How many connections the probe makes, one to each port.
const CONNECTS: usize = STREAM_PORTS.len();
/// How many system calls the probe makes, each with its error number or 0: the connections, and four more.
const TRIES: usize = CONNECTS + 4;
/// How long each of its steps may take, on a machine that is starting or slow.
const PATIENCE: Duration = Duration::from_secs(30);
const HTTPS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 443);

impl Capture {
    /// Tries all hooks. An error if that wasn't possible; a hook that doesn't do what it should is a failed check.
    pub fn self_test(&self) -> Result<Vec<Check>, CaptureError> {
        let probed = std::thread::scope(|scope| {
            // A thread of its own, whose network namespace ends with it.
            scope.spawn(|| self.probe()).join().unwrap_or_else(|_| Err(io::Error::other("BUG: its thread panicked")))
        });
        probed.map_err(CaptureError::system(
            "the self-test (it needs CAP_SYS_ADMIN for a network namespace, and the cgroup root writable; under systemd: \
             RestrictNamespaces= must allow `net`)",
        ))
    }

    fn probe(&self) -> io::Result<Vec<Check>> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        netns::loopback_up()?;
        let listeners = self.listen_here(ListenPorts::default()).map_err(io::Error::other)?;
        let place = Place::make(self)?;
        let mut checks = self.effective(&place)?;
        let (tried, origins) = place.run(self, &listeners)?;
        let (redirects, rest) = tried.split_at(CONNECTS);
        let &[guard, quic, kind, handed] = rest else { return Err(io::Error::other("BUG: four more were tried")) };
        let redirect = redirects.iter().copied().find(|error| *error != 0).unwrap_or(0);
        let mut check = |what, passed: bool, found: String| {
            checks.push(Check { what, result: if passed { Ok(()) } else { Err(found) } });
        };
        let text = |error: i32| io::Error::from_raw_os_error(error).to_string();
        check(
            "an agent's connection is redirected",
            redirect == 0 && origins.is_ok(),
            match redirect {
                0 => format!(
                    "{}; another BPF program changes addresses after ours (`bpftool cgroup tree` lists them), or handshakes \
                     are seen by another sock_ops program",
                    origins.err().unwrap_or_default()
                ),
                libc::EBADF => "its socket was refused; another BPF program decides before ours".to_owned(),
                error => format!("connect(2) said: {}; another BPF program decides before ours", text(error)),
            },
        );
        let refused = |error: i32| error == libc::EPERM;
        let instead = |error: i32| match error {
            0 => "it was sent; another BPF program overrides ours, see `bpftool cgroup tree`".to_owned(),
            // Its socket, then: the probe has no other descriptor to be wrong about.
            libc::EBADF => {
                "its socket was refused; another BPF program decides before ours (`bpftool cgroup tree`)".to_owned()
            }
            error => format!("it failed, but not by our hook: {}", text(error)),
        };
        check("an agent's UDP to port 443 is refused", refused(quic), instead(quic));
        check(
            "an agent's socket of another transport is refused",
            // A kernel without UDP-Lite has none to refuse.
            refused(kind) || kind == libc::EPROTONOSUPPORT || kind == libc::ESOCKTNOSUPPORT,
            "it was made; another BPF program overrides ours, see `bpftool cgroup tree`".to_owned(),
        );
        check("what leaves past the redirection is dropped", refused(guard), instead(guard));
        if self.missing_hooks().is_empty() {
            check(
                "a connection that is handed to an agent is guarded",
                refused(handed),
                "the LSM hook is attached, but not called: boot with `bpf` at the end of the kernel's `lsm=` list \
                 (/sys/kernel/security/lsm has the list in force), or set `capture.lsm = \"optional\"`"
                    .to_owned(),
            );
        }
        Ok(checks)
    }

    /// Whether the kernel runs our programs for a cgroup below the root.
    fn effective(&self, place: &Place<'_>) -> io::Result<Vec<Check>> {
        let cgroup = File::open(&place.cgroup)?;
        let mut absent = Vec::new();
        for attached in self.attached() {
            if !sys::effective_programs(cgroup.as_fd(), attached.kind)?.contains(&attached.program) {
                absent.push(attached.hook);
            }
        }
        let result = if absent.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{} are not in force there: `bpftool cgroup tree` says what is; take the pins off (`chaperone disable`) \
                 and start again",
                absent.join(", ")
            ))
        };
        Ok(vec![Check { what: "the hooks are in force in every cgroup", result }])
    }
}

/// The test's cgroup, gone when it is dropped.
struct Place<'a> {
    capture: &'a Capture,
    cgroup: PathBuf,
    /// Of its folder: who finds it knows that this process lives.
    _lock: File,
}

impl<'a> Place<'a> {
    fn make(capture: &'a Capture) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = capture.cgroup_root().join(format!("{SELF_TEST}{}-{number}", std::process::id()));
        match fs::create_dir(&cgroup) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = File::open(&cgroup)?;
        lock.try_lock()?;
        Ok(Self { capture, cgroup, _lock: lock })
    }

    /// Runs the probe; gives what its system calls said, and what was wrong with the connections that arrived.
    fn run(&self, capture: &Capture, listeners: &Listeners) -> io::Result<([i32; TRIES], Result<(), String>)> {
        let id = cgroup_id(&self.cgroup).map_err(io::Error::other)?;
        let procs = OpenOptions::new().write(true).open(self.cgroup.join("cgroup.procs"))?;
        // Made and connected outside: the child inherits it as it would have been handed one.
        let handed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        handed.connect(HTTPS)?;
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let parent = Pid::this();
        // SAFETY: the child makes system calls by libc alone, allocates nothing and takes no lock, until it exits.
        let child = match unsafe { fork() }? {
            // SAFETY: right after fork, and all four are open.
            ForkResult::Child => unsafe {
                probe([procs.as_raw_fd(), handed.as_raw_fd(), theirs.as_raw_fd()], ours.as_raw_fd(), parent)
            },
            ForkResult::Parent { child } => Child(child),
        };
        drop(theirs);
        ours.read_exact(&mut [0])?;
        // Not before: its first socket is from before the enrolment.
        capture.probes.lock().insert(id.0);
        capture.enroll(id).map_err(io::Error::other)?;
        ours.write_all(&[0])?;
        let mut said = [0; TRIES * 4];
        ours.read_exact(&mut said)?;
        drop(child);
        let mut tried = [0; TRIES];
        for (error, bytes) in tried.iter_mut().zip(said.chunks_exact(4)) {
            *error = i32::from_ne_bytes(bytes.try_into().expect("BUG: chunks of four"));
        }
        let connected = STREAM_PORTS.into_iter().zip(tried).filter(|(_, error)| *error == 0);
        let origins = arrived(capture, listeners, id, connected.map(|(port, _)| port).collect())?;
        Ok((tried, origins))
    }
}

/// Takes the probe's connections, and holds their origins against what they must be. Processors that take part in a
/// handshake each at its own pace may finish a later one first.
fn arrived(
    capture: &Capture,
    listeners: &Listeners,
    enrolled: CgroupId,
    mut wanted: BTreeSet<u16>,
) -> io::Result<Result<(), String>> {
    while !wanted.is_empty() {
        let mut arrives = [PollFd::new(listeners.v4.as_fd(), PollFlags::POLLIN)];
        if poll(&mut arrives, PollTimeout::from(10_000_u16))? == 0 {
            return Ok(Err(format!("what was sent to the ports {wanted:?} didn't arrive")));
        }
        let (stream, peer) = listeners.v4.accept()?;
        match capture.origins().of(&stream) {
            Ok(origin)
                if origin.enrolled == enrolled
                    && origin.destination.0.ip() == *HTTPS.ip()
                    && wanted.remove(&origin.destination.0.port()) => {}
            Ok(origin) => {
                return Ok(Err(format!(
                    "one from {peer} arrived as sent to {} by {}, not by {} to one of the ports {wanted:?}",
                    origin.destination.0, origin.enrolled.0, enrolled.0
                )));
            }
            Err(error) => return Ok(Err(format!("one from {peer} arrived without its origin: {error}"))),
        }
    }
    Ok(Ok(()))
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Ok(id) = cgroup_id(&self.cgroup)
            && let Err(error) = self.capture.withdraw(id)
        {
            tracing::warn!(%error, "the self-test's cgroup could not be withdrawn");
        }
        if let Err(error) = fs::remove_dir(&self.cgroup) {
            tracing::warn!(cgroup = %self.cgroup.display(), %error, "the self-test's cgroup could not be removed");
        }
    }
}

/// The probing process, gone when it is dropped.
struct Child(Pid);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Closes all descriptors but these (`close_range(2)`, Linux 5.9).
///
/// # Safety
///
/// Nothing may use any of the others afterwards.
unsafe fn close_others(mut kept: [i32; 3]) {
    kept.sort_unstable();
    let mut from = 0;
    for kept in kept.map(|kept| libc::c_uint::try_from(kept).unwrap_or(0)) {
        if kept > from {
            // SAFETY: numbers alone; the caller vouches for the descriptors.
            unsafe { libc::syscall(libc::SYS_close_range, from, kept - 1, 0) };
        }
        from = kept + 1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) };
}

/// What the child does: enters the cgroup, waits for its enrolment, tries. It ends with its parent, whenever that is
/// killed: the kernel tells it of the end of the thread that forked it (`PR_SET_PDEATHSIG`), and it keeps none of the
/// parent's descriptors, by which it could wait for itself or keep a caller's pipe open.
///
/// # Safety
///
/// To be called right after fork, with descriptors that are open. It never comes back.
unsafe fn probe([procs, handed, talk]: [i32; 3], parents: i32, parent: Pid) -> ! {
    fn error(result: isize) -> i32 {
        // SAFETY: the thread's own error number.
        if result < 0 { unsafe { *libc::__errno_location() } } else { 0 }
    }
    // SAFETY: system calls with locals that outlive them.
    unsafe {
        let loopback = |port: u16| libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(2),
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
            sin_zero: [0; 8],
        };
        let https = loopback(443);
        let to = (&raw const https).cast::<libc::sockaddr>();
        let length = 16;
        let byte = [0_u8];
        let data = byte.as_ptr().cast();
        // Of a parent that is gone already, the kernel tells nothing.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if libc::getppid() != parent.as_raw() {
            libc::_exit(1);
        }
        libc::close(parents);
        close_others([procs, handed, talk]);
        if libc::write(procs, c"0".as_ptr().cast(), 1) != 1 {
            libc::_exit(1);
        }
        let earlier = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        libc::connect(earlier, to, length);
        libc::write(talk, data, 1);
        let mut enrolled = [0_u8];
        if libc::read(talk, enrolled.as_mut_ptr().cast(), 1) != 1 {
            libc::_exit(1);
        }
        let mut tried = [0; TRIES];
        for (port, tried) in STREAM_PORTS.into_iter().zip(&mut tried) {
            let (stream, to) = (libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0), loopback(port));
            *tried = error(libc::connect(stream, (&raw const to).cast(), length) as isize);
        }
        let datagram = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        tried[CONNECTS] = error(libc::send(earlier, data, 1, 0));
        tried[CONNECTS + 1] = error(libc::sendto(datagram, data, 1, 0, to, length));
        tried[CONNECTS + 2] = error(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE) as isize);
        tried[CONNECTS + 3] = error(libc::send(handed, data, 1, 0));
        libc::write(talk, tried.as_ptr().cast(), TRIES * 4);
        // Until the end of this process is wanted: the connection stays.
        libc::read(talk, enrolled.as_mut_ptr().cast(), 1);
        libc::_exit(0)
    }
}
