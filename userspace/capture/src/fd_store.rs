//! Listening sockets in the service manager's keeping: while one daemon is replaced by the next, agents' connections wait
//! in their queues instead of being refused.
//!
//! A daemon has them kept once it is ready, and takes them back in its first moment. From then on until it is ready itself
//! nobody else has them: if it can't start, in whatever way, they are closed with its end, and agents are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    sync::atomic::{AtomicBool, Ordering},
};

use chaperone_ebpf_abi::{AF_INET, AF_INET6, Home};
use chaperone_model::NetnsCookie;
use sd_notify::NotifyState;
use socket2::{Protocol, Socket, Type};

use crate::{Capture, CaptureError, ListenPorts, Listeners, listen::Other, maps::HomeRecord, netns_cookie, sys};

/// What the service manager kept. Closed when it is dropped.
#[derive(Debug, Default)]
pub struct FdStore(Vec<OwnedFd>);

impl FdStore {
    /// What it kept, and keeps no longer. Nothing if there is no service manager, or none that keeps sockets; nothing again,
    /// if this is asked again.
    pub fn take() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(Self::default());
        }
        let inherited: Vec<(RawFd, String)> = sd_notify::listen_fds_with_names()?.collect();
        // SAFETY: the environment says that whoever started this process opened these for it; they are open, or it would
        // be an error, and as this happens once, nobody else closes them.
        let sockets = inherited.iter().map(|(fd, _)| unsafe { OwnedFd::from_raw_fd(*fd) }).collect();
        let names: BTreeSet<_> = inherited.iter().map(|(_, name)| name.as_str()).collect();
        for name in names {
            sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
        }
        Ok(Self(sockets))
    }
}

impl From<Vec<OwnedFd>> for FdStore {
    fn from(sockets: Vec<OwnedFd>) -> Self {
        Self(sockets)
    }
}

impl Listeners {
    /// Has the service manager keep them beyond this process, if there is one. Whether it does isn't told; it needs
    /// `FileDescriptorStoreMax=` for it.
    pub fn keep(&self) -> io::Result<()> {
        let sockets: Vec<BorrowedFd<'_>> = std::iter::once(&self.v4).chain(&self.v6).map(|it| it.as_fd()).collect();
        sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(&name(self.netns))], &sockets)
    }
}

/// Has the service manager keep the listeners in that namespace no longer.
pub fn keep_no_longer(netns: NetnsCookie) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name(netns))])
}

fn name(netns: NetnsCookie) -> String {
    format!("netns-{}", netns.0)
}

/// Listeners that an earlier daemon opened, with what waits in their queues.
#[derive(Debug, Default)]
pub struct Adopted {
    /// In the daemon's network namespace. Without them, there are no others.
    pub home: Option<Listeners>,
    /// In other namespaces.
    pub others: Vec<Listeners>,
    /// Why the rest was closed, each.
    pub closed: Vec<String>,
}

impl Capture {
    /// Takes over what an earlier daemon [listened](Self::listen) by, if the hooks still point at it; whatever else there is
    /// among the kept sockets is closed. `ports` are those that are configured now.
    pub fn adopt(&self, kept: FdStore, ports: ListenPorts) -> Result<Adopted, CaptureError> {
        let mut adopted = Adopted::default();
        if kept.0.is_empty() {
            return Ok(adopted);
        }
        let failed = CaptureError::system;
        let HomeRecord(told) =
            self.home.lock().get(&0, 0).map_err(CaptureError::map("asking the hooks where the daemon listened"))?;
        let here = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(netns_cookie)
            .map_err(failed("asking for the network namespace's cookie"))?;
        let pointed_at = self.pointed_at()?;
        let mut namespaces = BTreeMap::<u64, [Option<TcpListener>; 2]>::new();
        for socket in kept.0 {
            match Candidate::examine(socket).and_then(|found| found.explain(told, here, ports, &pointed_at)) {
                Ok(Candidate { listener, netns, v6, .. }) => {
                    // Two can't listen at one address, so that this is the same one again.
                    namespaces.entry(netns.0).or_default()[usize::from(v6)] = Some(listener);
                }
                Err(why) => adopted.closed.push(why),
            }
        }
        let Some([Some(v4), v6]) = namespaces.remove(&here.0).filter(|[_, v6]| v6.is_some() == (told.v6 != 0)) else {
            adopted
                .closed
                .extend(namespaces.keys().map(|netns| format!("the namespace {netns}'s: home's are not there")));
            return Ok(adopted);
        };
        let inode = fs::metadata("/proc/thread-self/ns/net").map_err(failed("asking for the network namespace"))?.ino();
        let mut listened = self.namespaces.lock();
        listened.home = Some((inode, ListenPorts { v4: told.v4, v6: told.v6 }));
        adopted.home = Some(Listeners { v4, v6, netns: here });
        for (netns, [v4, v6]) in namespaces {
            let Some(v4) = v4 else {
                adopted.closed.push(format!("the namespace {netns}'s: there is none for IPv4"));
                continue;
            };
            let cookie = NetnsCookie(netns);
            let inode = sys::netns_inode(&v4).map_err(failed("asking for a listener's network namespace"))?;
            listened.others.insert(inode, Other { cookie, is_empty: false });
            adopted.others.push(Listeners { v4, v6, netns: cookie });
        }
        Ok(adopted)
    }

    /// The namespaces and families that the hooks have a listener in.
    fn pointed_at(&self) -> Result<BTreeSet<(u64, u32)>, CaptureError> {
        let listeners = self.listeners.lock();
        let keys = listeners.keys().map(|key| key.map(|key| (key.0.netns, key.0.family)));
        keys.collect::<Result<_, _>>().map_err(CaptureError::map("asking the hooks for their listeners"))
    }
}

/// A socket that may be one of ours.
struct Candidate {
    listener: TcpListener,
    netns: NetnsCookie,
    v6: bool,
    port: u16,
}

impl Candidate {
    fn examine(socket: OwnedFd) -> Result<Self, String> {
        let socket = Socket::from(socket);
        let text = |error: io::Error| format!("it is not a listening TCP socket: {error}");
        let kind = (socket.r#type().map_err(text)?, socket.protocol().map_err(text)?);
        if kind != (Type::STREAM, Some(Protocol::TCP)) || !socket.is_listener().map_err(text)? {
            return Err("it is not a listening TCP socket".to_owned());
        }
        let address = socket.local_addr().map_err(text)?.as_socket();
        let (v6, port) = match address {
            Some(SocketAddr::V4(address)) if *address.ip() == Ipv4Addr::LOCALHOST => (false, address.port()),
            Some(SocketAddr::V6(address)) if *address.ip() == Ipv6Addr::LOCALHOST => (true, address.port()),
            Some(address) => return Err(format!("it listens on {address}")),
            None => return Err("it is not a listening TCP socket".to_owned()),
        };
        let netns = netns_cookie(&socket).map_err(text)?;
        socket.set_nonblocking(true).map_err(text)?;
        Ok(Self { listener: socket.into(), netns, v6, port })
    }

    /// Whether the hooks point at this very socket. They have one at its port in its namespace, which it can only be itself:
    /// an entry goes with its socket, and no two sockets of ours can listen at one address.
    fn explain(
        self,
        told: Home,
        here: NetnsCookie,
        ports: ListenPorts,
        pointed_at: &BTreeSet<(u64, u32)>,
    ) -> Result<Self, String> {
        let Self { netns, v6, port, .. } = self;
        let what = format!("port {port} in the namespace {}", netns.0);
        if told.netns != here.0 {
            return Err(format!("{what}: the daemon's home was another network namespace"));
        }
        let (family, expected, configured) =
            if v6 { (AF_INET6, told.v6, ports.v6) } else { (AF_INET, told.v4, ports.v4) };
        if port != expected || !pointed_at.contains(&(netns.0, family)) {
            return Err(format!("{what}: the hooks don't point there"));
        }
        if configured != 0 && configured != port {
            return Err(format!("{what}: the configuration has another port now"));
        }
        Ok(self)
    }
}
