//! Doing something in another network namespace: in a thread of its own, for a thread's namespace is its own, too.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// The network namespace of a socket.
#[derive(Debug)]
pub struct NetworkNamespace(File);

impl NetworkNamespace {
    /// That of this socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        sys::netns_of(socket).map(Self)
    }

    /// Whether there is a way from in there to this address, by its routes alone: nothing is sent. Blocks.
    pub fn routes_to(&self, address: SocketAddr) -> io::Result<()> {
        within(&self.0, || {
            let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            UdpSocket::bind(SocketAddr::new(any, 0))?.connect(address)
        })
    }

    /// A TCP socket in there to connect to this address by, non-blocking; it isn't connected yet. Blocks.
    pub fn socket_for(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = within(&self.0, || Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)))?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }
}

/// Runs `act` in that namespace (an open `/proc/PID/ns/net`). Needs `CAP_SYS_ADMIN`. The thread ends with it, so that
/// nothing else of the daemon's ever runs in there.
pub(crate) fn within<T: Send>(namespace: &File, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            act()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("BUG: the thread in the namespace panicked")))
    })
}

/// The network namespaces of these processes, each once, by its inode.
pub(crate) fn of_processes(pids: impl IntoIterator<Item = u32>) -> BTreeMap<u64, File> {
    let mut namespaces = BTreeMap::new();
    for pid in pids {
        let path = format!("/proc/{pid}/ns/net");
        // A process may end at any time.
        let Ok(inode) = fs::metadata(&path).map(|metadata| metadata.ino()) else { continue };
        if let std::collections::btree_map::Entry::Vacant(entry) = namespaces.entry(inode)
            && let Ok(file) = File::open(&path)
        {
            entry.insert(file);
        }
    }
    namespaces
}

/// Brings up the loopback interface of the calling thread's namespace, without which nothing can be redirected in there.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = libc::c_char::from_ne_bytes([b'l']);
    request.ifr_name[1] = libc::c_char::from_ne_bytes([b'o']);
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("BUG: two flags of the lower seven bits");
    // SAFETY: the request is a local that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
