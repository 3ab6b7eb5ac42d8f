//! Listing and destroying TCP sockets: `NETLINK_SOCK_DIAG`, see sock_diag(7). Of the calling thread's network namespace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use chaperone_model::CgroupId;

/// include/uapi/linux/sock_diag.h and inet_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_CGROUP_ID: u16 = 21;
const REQUEST_BYTES: usize = 56;
const MESSAGE_BYTES: usize = 72;
/// `struct inet_diag_sockid`, and where it is in a message and in a request.
const ID_BYTES: usize = 48;
const ID_IN_MESSAGE: usize = 4;
const ID_IN_REQUEST: usize = 8;
const HEADER_BYTES: usize = 16;
/// Every state of a connection: all but listening ones (10) and closed ones (7).
const CONNECTION_STATES: u32 = 0xfff & !(1 << 10) & !(1 << 7);

/// A TCP socket, as the kernel describes it.
#[derive(Clone, Debug)]
pub(crate) struct TcpSocket {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) uid: u32,
    /// The cgroup that it was made in (Linux 5.9).
    pub(crate) cgroup: Option<CgroupId>,
    family: u8,
    id: [u8; ID_BYTES],
}

/// A netlink socket.
pub(crate) struct SockDiag(OwnedFd);

impl SockDiag {
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: takes numbers, gives a descriptor that is ours, or an error.
        unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(OwnedFd::from_raw_fd(fd))) }
        }
    }

    /// All TCP connections, of both families.
    pub(crate) fn connections(&self) -> io::Result<Vec<TcpSocket>> {
        let mut sockets = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            self.send(SOCK_DIAG_BY_FAMILY, flags, &request(family.to_ne_bytes()[0], None))?;
            self.receive(|body| sockets.extend(TcpSocket::parse(body)))?;
        }
        Ok(sockets)
    }

    /// Ends a connection: its holder reads `ECONNABORTED`, the peer gets a reset. Needs `CAP_NET_ADMIN` and a kernel with
    /// `CONFIG_INET_DIAG_DESTROY`, else `EOPNOTSUPP`. Minimum kernel: 4.5.
    pub(crate) fn destroy(&self, socket: &TcpSocket) -> io::Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.send(SOCK_DESTROY, flags, &request(socket.family, Some(&socket.id)))?;
        self.receive(|_| ())
    }

    fn send(&self, kind: u16, flags: i32, body: &[u8; REQUEST_BYTES]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
        message.extend_from_slice(&u32::try_from(HEADER_BYTES + REQUEST_BYTES).expect("BUG: small").to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&u16::try_from(flags).expect("BUG: netlink's flags are 16 bits").to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        nix::sys::socket::send(self.0.as_raw_fd(), &message, nix::sys::socket::MsgFlags::empty())?;
        Ok(())
    }

    /// Passes on the answers to one request, to their end.
    fn receive(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER_BYTES {
                let length = number(rest, 0) as usize;
                if length < HEADER_BYTES || length > rest.len() {
                    return Err(io::Error::other("a netlink message of an impossible length"));
                }
                let body = &rest[HEADER_BYTES..length];
                match i32::from(u16::from_ne_bytes([rest[4], rest[5]])) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR if body.len() >= 4 => {
                        let code = number(body, 0).cast_signed();
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => each(body),
                }
                rest = &rest[(length.next_multiple_of(4)).min(rest.len())..];
            }
        }
    }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, id: Option<&[u8; ID_BYTES]>) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[0] = family;
    request[1] = 6; // IPPROTO_TCP
    request[4..8].copy_from_slice(&CONNECTION_STATES.to_ne_bytes());
    if let Some(id) = id {
        request[ID_IN_REQUEST..].copy_from_slice(id);
    }
    request
}

impl TcpSocket {
    /// `struct inet_diag_msg` and its attributes.
    fn parse(body: &[u8]) -> Option<Self> {
        let message = body.get(..MESSAGE_BYTES)?;
        let id: [u8; ID_BYTES] = message[ID_IN_MESSAGE..ID_IN_MESSAGE + ID_BYTES].try_into().ok()?;
        let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = id[at..at + 16].try_into().ok()?;
            Some(match i32::from(message[0]) {
                libc::AF_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
                _ => Ipv6Addr::from(bytes).to_canonical(),
            })
        };
        let mut cgroup = None;
        let mut rest = &body[MESSAGE_BYTES..];
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            if length < 4 || length > rest.len() {
                break;
            }
            if u16::from_ne_bytes([rest[2], rest[3]]) == INET_DIAG_CGROUP_ID {
                cgroup = rest[4..length].try_into().ok().map(|id| CgroupId(u64::from_ne_bytes(id)));
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Some(Self {
            local: SocketAddr::new(address(4)?, port(0)),
            peer: SocketAddr::new(address(20)?, port(2)),
            uid: number(message, 64),
            cgroup,
            family: message[0],
            id,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn this_processs_connection_is_found() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = SockDiag::open().unwrap().connections().unwrap();
        let found = found.iter().find(|socket| socket.local == stream.local_addr().unwrap()).expect("it is there");
        assert_eq!(found.peer, listener.local_addr().unwrap());
        assert_eq!(found.uid, nix::unistd::getuid().as_raw());
        assert!(found.cgroup.is_some());
    }

    #[test]
    fn short_messages_are_no_sockets() {
        assert!(TcpSocket::parse(&[0; MESSAGE_BYTES - 1]).is_none());
        // An attribute that says it is longer than the message.
        let mut body = [0; MESSAGE_BYTES + 8];
        body[MESSAGE_BYTES] = 200;
        assert_eq!(TcpSocket::parse(&body).unwrap().cgroup, None);
    }
}
