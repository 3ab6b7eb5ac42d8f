//! Connections that aren't AWS's: passed on byte for byte, to an address that the daemon resolved, from the network
//! namespace that they came from: a container reaches so what it could reach by itself.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use chaperone_capture::NetworkNamespace;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::{TcpSocket, TcpStream},
    task::spawn_blocking,
    time::timeout,
};

use crate::connection::quota::Quota;

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
    #[error("resolving `{name}`: {source}")]
    Resolve { name: String, source: io::Error },
    #[error("`{name}`: there is no way to {address} in the network namespace that this connection came from: {source}")]
    Unreachable { name: String, address: SocketAddr, source: io::Error },
    #[error("{what} `{name}` took longer than {} s", .after.as_secs())]
    Timeout { what: &'static str, name: String, after: Duration },
}

/// Connects to `name` at an address that is resolved here. The agent's own choice is taken when it is among them, so
/// that its load balancing stays as it is, and never otherwise: the name that was asked for is the name that is met.
///
/// `from` is the agent's end of a connection that isn't from the daemon's own network namespace.
pub(crate) async fn connect(
    name: &str,
    original: SocketAddr,
    from: Option<&TcpStream>,
    share: &Quota,
    after: Duration,
) -> Result<TcpStream, TunnelError> {
    let timed_out = |what| move |_| TunnelError::Timeout { what, name: name.to_owned(), after };
    let resolve = |source| TunnelError::Resolve { name: name.to_owned(), source };
    let namespace = from.map(NetworkNamespace::of).transpose().map_err(TunnelError::Namespace)?.map(Arc::new);
    if let Some(namespace) = namespace.clone() {
        // Nothing is asked of the host's resolver, either, for who could not have sent anything there.
        blocking(move || namespace.routes_to(original))
            .await
            .map_err(TunnelError::Namespace)?
            .map_err(|source| TunnelError::Unreachable { name: name.to_owned(), address: original, source })?;
    }
    let found = timeout(after, look_up(name, original.port(), share)).await.map_err(timed_out("resolving"))?;
    let mut addresses: Vec<SocketAddr> = found.map_err(resolve)?;
    // A name that an attacker owns may resolve to the real metadata service, which answers the daemon with real
    // credentials.
    if let Some(address) = addresses.iter().find(|address| is_link_local(address.ip())) {
        return Err(TunnelError::Forbidden { name: name.to_owned(), address: address.ip() });
    }
    addresses.sort_by_key(|address| *address != original);
    addresses.truncate(MAX_ADDRESSES);
    let mut last = resolve(io::Error::new(io::ErrorKind::NotFound, "no address"));
    for address in addresses {
        let connected = async {
            match namespace.clone() {
                None => TcpStream::connect(address).await,
                Some(namespace) => {
                    let socket = blocking(move || namespace.socket_for(address)).await??;
                    TcpSocket::from_std_stream(socket).connect(address).await
                }
            }
        };
        match timeout(after, connected).await.map_err(timed_out("connecting to"))? {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(resolve)?;
                return Ok(stream);
            }
            Err(source) => last = TunnelError::Connect { name: name.to_owned(), address, source },
        }
    }
    Err(last)
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
pub(crate) async fn copy<A: AsyncRead + AsyncWrite + Unpin>(
    agent: &mut A,
    upstream: &mut TcpStream,
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
