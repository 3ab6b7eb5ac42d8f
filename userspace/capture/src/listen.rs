//! The listeners that the hooks point at.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
};

use aya::maps::{MapData, SockHash};
use chaperone_ebpf_abi::{AF_INET, AF_INET6, ListenerKey};
use chaperone_model::NetnsCookie;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{CaptureError, netns_cookie};

/// Which ports to listen on; 0 lets the kernel choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenPorts {
    /// On 127.0.0.1.
    pub v4: u16,
    /// On `::1`.
    pub v6: u16,
}

/// The daemon's listening sockets in one network namespace; non-blocking. Once one is closed, the hooks refuse what
/// they would have pointed at it.
#[derive(Debug)]
pub struct Listeners {
    /// On 127.0.0.1: IPv4, and IPv6 sockets that dial v4-mapped addresses.
    pub v4: TcpListener,
    /// On `::1`; `None` where there is no IPv6, and then the hooks refuse it.
    pub v6: Option<TcpListener>,
    /// Their network namespace.
    pub netns: NetnsCookie,
}

/// As for the hooks' map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Key(pub(crate) ListenerKey);

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for Key {}

const BACKLOG: i32 = 4096;

/// Whose network namespace it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Somebody else's: the loopback interface may be brought up later.
    Elsewhere,
    /// The daemon's.
    Home,
}

/// Listens in the calling thread's network namespace and tells the hooks.
pub(crate) fn listen(
    map: &mut SockHash<MapData, Key>,
    ports: ListenPorts,
    place: Place,
) -> Result<Listeners, CaptureError> {
    let v4 = open((Ipv4Addr::LOCALHOST, ports.v4).into(), place)?;
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, ports.v6));
    let v6 = match open(address, place) {
        Ok(listener) => Some(listener),
        Err(CaptureError::Listen { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) =>
        {
            tracing::warn!(%source, "no IPv6 on the loopback interface: agents' IPv6 connections are refused");
            None
        }
        Err(error) => return Err(error),
    };
    let netns = netns_cookie(&v4).map_err(CaptureError::system("asking for the network namespace's cookie"))?;
    publish(map, netns, AF_INET, Some(&v4))?;
    publish(map, netns, AF_INET6, v6.as_ref())?;
    Ok(Listeners { v4, v6, netns })
}

fn open(address: SocketAddr, place: Place) -> Result<TcpListener, CaptureError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if place == Place::Elsewhere {
            if address.is_ipv6() { socket.set_freebind_v6(true)? } else { socket.set_freebind_v4(true)? }
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|source| CaptureError::Listen { address, source })
}

fn publish(
    map: &mut SockHash<MapData, Key>,
    netns: NetnsCookie,
    family: u32,
    listener: Option<&TcpListener>,
) -> Result<(), CaptureError> {
    let key = Key(ListenerKey::new(netns.0, family));
    match listener {
        Some(listener) => {
            map.insert(key, listener.as_raw_fd(), 0).map_err(CaptureError::map("giving the hooks the listening socket"))
        }
        None => Ok(()),
    }
}

/// The namespaces that the daemon listens in.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// The daemon's own, by its inode, with its listeners' ports.
    pub(crate) home: Option<(u64, ListenPorts)>,
    /// The others, by their inodes, which aren't given again while there is a listener.
    pub(crate) others: BTreeMap<u64, Other>,
}

#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) cookie: NetnsCookie,
    /// No process was seen in it the last time.
    pub(crate) is_empty: bool,
}
