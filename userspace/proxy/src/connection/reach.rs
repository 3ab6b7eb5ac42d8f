//! Which addresses the daemon dials for a name of AWS's: the agent chose it, and must not find out by the daemon what
//! answers where in the networks that the host can reach.
//!
//! AWS gives each look-up of its public names other addresses, so that a public one is taken as it is: whoever answers
//! there must have AWS's certificate, and what else happens the agent isn't told. Any other address must be one that the
//! name has for this host: that of a VPC endpoint, or of a private API.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::connection::{quota::Quota, tunnel::look_up};

/// For how long an answer of the resolver holds. As for resolvers themselves, a name may have changed meanwhile.
const HOLDS: Duration = Duration::from_secs(30);
/// How many names are remembered.
const MAX_NAMES: usize = 1024;

/// Why an address isn't dialled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutOfReach {
    #[error(
        "`{name}` was dialled at {address}, which is no public address and not one that the name has for this host"
    )]
    NotItsOwn { name: String, address: IpAddr },
    #[error("resolving `{name}`, to see whether {address} is its own: {source}")]
    Resolve { name: String, address: IpAddr, source: io::Error },
    #[error("resolving `{name}`, to see whether {address} is its own, took longer than {} s", .after.as_secs())]
    Timeout { name: String, address: IpAddr, after: Duration },
}

/// When a name was looked up, and what it had then.
type Known = (Instant, Arc<[IpAddr]>);

/// What names had for addresses lately.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    known: Mutex<HashMap<String, Known>>,
}

impl Reach {
    /// Whether `name` may be dialled there.
    pub(crate) async fn check(
        &self,
        name: &str,
        address: SocketAddr,
        share: &Quota,
        after: Duration,
    ) -> Result<(), OutOfReach> {
        let wanted = address.ip().to_canonical();
        if is_public(wanted) {
            return Ok(());
        }
        let known = self.known.lock().get(name).filter(|(at, _)| at.elapsed() < HOLDS).map(|(_, known)| known.clone());
        if known.is_some_and(|known| known.contains(&wanted)) {
            return Ok(());
        }
        let found = timeout(after, look_up(name, address.port(), share))
            .await
            .map_err(|_| OutOfReach::Timeout { name: name.to_owned(), address: wanted, after })?
            .map_err(|source| OutOfReach::Resolve { name: name.to_owned(), address: wanted, source })?;
        let found: Arc<[IpAddr]> = found.iter().map(|found| found.ip().to_canonical()).collect();
        let is_its_own = found.contains(&wanted);
        let mut known = self.known.lock();
        if known.len() >= MAX_NAMES {
            known.retain(|_, (at, _)| at.elapsed() < HOLDS);
        }
        // Names are the agents' to choose: when there are too many, it is asked again.
        if is_its_own && known.len() < MAX_NAMES {
            known.insert(name.to_owned(), (Instant::now(), found));
        }
        if is_its_own { Ok(()) } else { Err(OutOfReach::NotItsOwn { name: name.to_owned(), address: wanted }) }
    }
}

/// An address of the internet's, by IANA's registries of special ones (RFC 6890 and its successors).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, .., low, lowest] = address.segments();
    let v4 = |high: u16, low: u16| is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        // NAT64 (RFC 6052): what is inside is what is met.
        (0x64, 0xff9b) if address.segments()[2..6] == [0; 4] => v4(low, lowest),
        // 6to4 (RFC 3056), likewise.
        (0x2002, _) => v4(b, c),
        // Teredo, benchmarking, ORCHID, documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, connection::quota::Quotas};

    #[test]
    fn special_addresses_are_not_public() {
        for special in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.7",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "64:ff9b:1::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
        for public in ["52.94.5.1", "3.5.140.2", "172.32.0.1", "2600:1f00::1", "2a05:d000::1", "64:ff9b::345e:501"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn private_addresses_must_be_the_names_own() {
        let share = Quotas::new(&Limits::default(), Arc::default()).of("/", "a");
        let reach = Reach::default();
        let after = Duration::from_secs(30);
        let check = async |address: &str| reach.check("localhost", address.parse().unwrap(), &share, after).await;
        check("127.0.0.1:443").await.unwrap();
        check("[::ffff:127.0.0.1]:443").await.unwrap();
        check("52.94.5.1:443").await.unwrap();
        for other in ["127.0.0.2:443", "10.0.0.1:443", "169.254.169.254:443"] {
            let refused = check(other).await.unwrap_err();
            assert!(matches!(refused, OutOfReach::NotItsOwn { .. }), "{refused}");
        }
    }
}
