//! A place of a test's own: network and mount namespaces of its thread, a BPF filesystem, cgroups. Needs root; a test
//! that can't have it fails.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use chaperone_capture::{Capture, CaptureConfig, ListenPorts, Listeners, LsmHooks, cgroup_id, cgroup_root};
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, fork, pipe},
};
use socket2::{SockAddr, Socket};

pub struct Lab {
    pub cgroup: PathBuf,
    pub config: CaptureConfig,
    _folder: tempfile::TempDir,
    /// One test at a time: agents are forks of this process, and would keep other tests' sockets and locks.
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces: run the tests as root");
        private_mounts();
        loopback_up();
        let folder = tempfile::tempdir().unwrap();
        let bpffs = folder.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = cgroup_root().unwrap().join(format!("chaperone-capture-test-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        Self {
            cgroup,
            config: CaptureConfig {
                bpffs: bpffs.join("chaperone"),
                cgroup_root: None,
                lsm: LsmHooks::WhereAvailable,
                mask: Arc::default(),
            },
            _folder: folder,
            _alone: alone,
        }
    }

    /// A cgroup of the lab's, by its path below the lab's own.
    pub fn cgroup(&self, name: &str) -> PathBuf {
        let path = self.cgroup.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Attached, listening, with the cgroup `agents` enrolled.
    pub fn start(&self) -> (Capture, Listeners, PathBuf) {
        let capture = Capture::attach(&self.config).unwrap();
        let listeners = capture.listen(ListenPorts::default()).unwrap();
        let agents = self.cgroup("agents");
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        (capture, listeners, agents)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove_cgroups(&self.cgroup);
    }
}

fn remove_cgroups(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

pub fn loopback_up() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = libc::c_char::from_ne_bytes([b'l']);
    request.ifr_name[1] = libc::c_char::from_ne_bytes([b'o']);
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap();
    // SAFETY: the request is a local that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    assert_eq!(result, 0, "loopback up: {}", io::Error::last_os_error());
}

/// How often to do what takes long where nothing is accelerated: `most` times, or as often as `CHAPERONE_TEST_COUNT` says
/// if that is less.
pub fn count(most: usize) -> usize {
    let told = std::env::var("CHAPERONE_TEST_COUNT").ok().map(|text| text.parse().expect("CHAPERONE_TEST_COUNT"));
    told.map_or(most, |told: usize| told.min(most))
}

/// Starts `act` in a process of its own in that cgroup; what it returns comes out of [`Agent::said`].
pub fn agent(cgroup: &Path, act: impl FnOnce() -> String) -> Agent {
    let (read, write) = pipe().unwrap();
    let (hold, release) = pipe().unwrap();
    // SAFETY: the child does system calls and allocates, which glibc allows after fork, and takes no lock that another
    // thread of the test may hold.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(read);
            drop(release);
            let said = match fs::write(cgroup.join("cgroup.procs"), "0") {
                Ok(()) => act(),
                Err(error) => format!("entering the cgroup: {error}"),
            };
            let _ = File::from(write).write_all(said.as_bytes());
            // Stays until the test has seen enough, so that its /proc entry does.
            let _ = File::from(hold).read(&mut [0]);
            // SAFETY: ends the child without running the test harness's handlers.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => Agent { child, said: File::from(read), release: Some(File::from(release)) },
    }
}

pub struct Agent {
    child: nix::unistd::Pid,
    said: File,
    release: Option<File>,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.child.as_raw().cast_unsigned()
    }

    /// Waits for the end of what it does.
    pub fn said(mut self) -> String {
        let mut said = vec![0; 4096];
        let length = self.said.read(&mut said).unwrap();
        self.release.take();
        waitpid(self.child, None).unwrap();
        String::from_utf8(said[..length].to_vec()).unwrap()
    }
}

/// Accepts the next connection; fails the test after a minute.
pub fn accept(listener: &TcpListener) -> TcpStream {
    accept_in_time(listener).expect("nothing connects")
}

/// Accepts the next connection, if one comes in a minute.
pub fn accept_in_time(listener: &TcpListener) -> Option<TcpStream> {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::from(60_000_u16)).unwrap() == 0 {
        return None;
    }
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    Some(stream)
}

/// The error's name, such as `EPERM`, or `ok`.
pub fn outcome<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
            None => error.to_string(),
        },
    }
}

/// A socket as the test wants it, of any protocol.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: takes numbers, gives a descriptor that is ours.
    unsafe {
        let fd = libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// A socket whose SYN is on its way.
pub fn begin_handshake() -> Socket {
    let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    socket.set_nonblocking(true).unwrap();
    let begun = socket.connect(&SockAddr::from("203.0.113.7:443".parse::<SocketAddr>().unwrap()));
    assert_eq!(outcome(begun), "EINPROGRESS");
    socket
}

/// Has the listener drop every packet, or not any more.
pub fn deafen(listener: &TcpListener, deaf: bool) {
    // "return 0" in classic BPF: keep nothing of the packet.
    let mut drop_all = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: drop_all.as_mut_ptr() };
    let option = if deaf { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
    // SAFETY: the option's value is a local of the stated size, and the filter outlives the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap(),
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Each mount by itself: in a chroot the root is none.
fn private_mounts() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for point in table.lines().map(|line| line.split(' ').nth(4).unwrap()) {
        match mount(None::<&str>, point, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>) {
            // Hidden below another one: out of reach, and so out of the way.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => panic!("making {point} private: {error}"),
        }
    }
}
