//! Connections that aren't AWS's: passed on byte for byte, to an address that the daemon resolved, from the network
//! namespace that they came from: a container reaches so what it could reach by itself.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chaperone_capture::NetworkNamespace;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::{TcpSocket, TcpStream},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    connection::{prefixed::Prefixed, quota::Quota},
    upstream::{
        http_proxy::{HttpProxy, ask},
        race::{first_of, in_turns},
    },
};

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 4;
/// Copy buffers: tunnels carry downloads, and there may be many.
const BUFFER: usize = 16 << 10;

/// Why a connection could not be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("connecting to {name} at {address}: {source}")]
    Connect { name: String, address: SocketAddr, source: io::Error },
    #[error("`{name}` resolves to {address}, a metadata service's or link-local address, where nothing is passed on")]
    Forbidden { name: String, address: IpAddr },
    #[error("entering the network namespace that this connection came from: {0}")]
    Namespace(io::Error),
    #[error("`{name}` has no address for this host, and where it was dialled nothing may be passed on")]
    Unknown { name: String },
    #[error("`{name}`: there is no way to {address} in the network namespace that this connection came from: {source}")]
    Unreachable { name: String, address: SocketAddr, source: io::Error },
    #[error("{what} `{name}` took longer than {} s", .after.as_secs())]
    Timeout { what: &'static str, name: String, after: Duration },
}

/// The way that a connection goes on by: from the network namespace that it came from, or by a proxy.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// `None`: the daemon's own.
    namespace: Option<Arc<NetworkNamespace>>,
    /// The daemon's own proxy.
    proxy: Option<Arc<HttpProxy>>,
    /// The proxy that the agent dialled, and what it is asked before it is the other side.
    agents_proxy: Option<(SocketAddr, Option<Bytes>)>,
}

impl Way {
    /// From the daemon's own namespace.
    pub(super) const fn home() -> Self {
        Self { namespace: None, proxy: None, agents_proxy: None }
    }

    /// From that of this connection.
    pub(super) fn of(agent: &TcpStream) -> Result<Self, TunnelError> {
        let namespace = NetworkNamespace::of(agent).map_err(TunnelError::Namespace)?;
        Ok(Self { namespace: Some(Arc::new(namespace)), ..Self::home() })
    }

    /// By the daemon's own proxy where there is one, or by that which the agent asked.
    pub(super) fn by(self, own: Option<&Arc<HttpProxy>>, agents: Option<(SocketAddr, Option<Bytes>)>) -> Self {
        let proxy = own.filter(|_| agents.is_none()).cloned();
        Self { proxy, agents_proxy: agents, ..self }
    }

    /// Whether it leads there at all.
    pub(super) async fn leads_to(&self, name: &str, address: SocketAddr) -> Result<(), TunnelError> {
        let address = self.agents_proxy.as_ref().map_or(address, |(proxy, _)| *proxy);
        let Some(namespace) = self.namespace.clone() else { return Ok(()) };
        blocking(move || namespace.routes_to(address))
            .await
            .map_err(TunnelError::Namespace)?
            .map_err(|source| TunnelError::Unreachable { name: name.to_owned(), address, source })
    }

    /// Whether somebody else than the host's resolver says where a name is.
    pub(super) fn is_by_proxy(&self, name: &str, address: SocketAddr) -> bool {
        self.agents_proxy.is_some() || self.proxy.as_ref().is_some_and(|proxy| proxy.is_for(Some(name), address.ip()))
    }

    /// Connects; `name`: for whom a proxy is asked, if not for the address.
    pub(super) async fn dial(&self, name: Option<&str>, address: SocketAddr) -> io::Result<Tunnel> {
        if let Some((proxy, asked)) = &self.agents_proxy {
            let mut stream = self.dial_directly(*proxy).await?;
            let said = match asked {
                Some(asked) => ask(&mut stream, asked).await?,
                None => Bytes::new(),
            };
            return Ok(Tunnel { start: said, stream });
        }
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.is_for(name, address.ip())) {
            let authority = name.map_or_else(|| address.to_string(), |name| format!("{name}:{}", address.port()));
            let (stream, said) = proxy.connect(&authority).await?;
            return Ok(Tunnel { start: said, stream });
        }
        Ok(Tunnel { start: Bytes::new(), stream: self.dial_directly(address).await? })
    }

    /// Connects to that address itself.
    pub(super) async fn dial_directly(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = match self.namespace.clone() {
            None => TcpStream::connect(address).await?,
            Some(namespace) => {
                let socket = blocking(move || namespace.socket_for(address)).await??;
                TcpSocket::from_std_stream(socket).connect(address).await?
            }
        };
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        Ok(stream)
    }
}

/// A program that sets it on its own socket (the SDKs of models' APIs do, since an answer may take longer than a NAT gateway
/// remembers a silent connection: 350 s) reaches no further than this daemon. So each goes on with it.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// A connection, and what has come by it already.
pub(super) type Tunnel = Prefixed;

/// Where a name is met: at the agent's own choice first, if it is among what the host's resolver has, so that its load
/// balancing stays as it is. An empty list is for a name that this resolver doesn't know.
///
/// A name that an attacker owns may resolve to the real metadata service, which answers the daemon with real credentials.
pub(super) async fn resolve(
    name: &str,
    original: SocketAddr,
    share: &Quota,
    after: Duration,
) -> Result<Vec<SocketAddr>, TunnelError> {
    let found = timeout(after, look_up(name, original.port(), share)).await.map_err(|_| TunnelError::Timeout {
        what: "resolving",
        name: name.to_owned(),
        after,
    })?;
    let mut addresses: Vec<SocketAddr> = match found {
        Ok(found) => found,
        // What it says of a name that there isn't differs by library. A resolver that fails knows nothing, either.
        Err(error) => {
            tracing::debug!(%error, name, "not resolved");
            Vec::new()
        }
    };
    if let Some(address) = addresses.iter().find(|address| is_link_local(address.ip())) {
        return Err(TunnelError::Forbidden { name: name.to_owned(), address: address.ip() });
    }
    let wanted = original.ip().to_canonical();
    addresses.sort_by_key(|address| address.ip().to_canonical() != wanted);
    let mut addresses = in_turns(addresses);
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

/// Connects to the first of these addresses that answers; a proxy is asked for the name where somebody else than the agent
/// vouches for it.
pub(super) async fn connect(
    name: &str,
    addresses: &[SocketAddr],
    is_vouched_for: impl Fn(SocketAddr) -> bool,
    way: &Way,
    after: Duration,
) -> Result<(Tunnel, SocketAddr), TunnelError> {
    let mut attempts = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let name_of = is_vouched_for(address).then_some(name);
        attempts.push(async move {
            match timeout(after, way.dial(name_of, address)).await {
                Ok(Ok(tunnel)) => Ok((tunnel, address)),
                Ok(Err(source)) => Err(TunnelError::Connect { name: name.to_owned(), address, source }),
                Err(_) => Err(TunnelError::Timeout { what: "connecting to", name: name.to_owned(), after }),
            }
        });
    }
    first_of(None, attempts).await.unwrap_or_else(|| Err(TunnelError::Unknown { name: name.to_owned() }))
}

/// Blocks a thread for as long as a resolver takes, whether somebody still waits or not.
pub(crate) async fn look_up(name: &str, port: u16, share: &Quota) -> io::Result<Vec<SocketAddr>> {
    let permits = share.resolve().await;
    let name = name.to_owned();
    blocking(move || {
        let _permits = permits;
        (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
    })
    .await?
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn_blocking(act).await.map_err(io::Error::other)
}

/// Copies both ways until both are over; gives the bytes from and to the agent.
pub(super) async fn copy<A: AsyncRead + AsyncWrite + Unpin>(
    agent: &mut A,
    upstream: &mut Tunnel,
) -> io::Result<(u64, u64)> {
    copy_bidirectional_with_sizes(agent, upstream, BUFFER, BUFFER).await
}

/// 169.254.0.0/16, fe80::/10 and fd00:ec2::/32, v4-mapped too.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => is_metadata_v6(v6) || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

fn is_metadata_v6(address: Ipv6Addr) -> bool {
    address.segments()[..2] == [0xfd00, 0x0ec2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of several addresses the first may say nothing at all: here a listener whose queue is full.
    #[tokio::test]
    async fn another_address_is_tried_beside_a_silent_one_and_is_kept_alive() {
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let _full = std::net::TcpStream::connect(address).unwrap();
        let answers = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let other = answers.local_addr().unwrap();
        let after = Duration::from_mins(1);
        let (tunnel, reached) = connect("a", &[address, other], |_| true, &Way::home(), after).await.unwrap();
        assert_eq!(reached, other);
        let socket = socket2::SockRef::from(&tunnel.stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    }

    #[test]
    fn metadata_services_are_out_of_reach() {
        for bad in
            ["169.254.169.254", "::ffff:169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fe80::1", "0.0.0.0", "::"]
        {
            assert!(is_link_local(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1", "192.0.2.1", "fd00:ec3::1", "2001:db8::1", "::1"] {
            assert!(!is_link_local(good.parse().unwrap()), "{good}");
        }
    }
}
