//! Proxies that agents dial: connections to them are captured as those to AWS's ports are, or whatever goes through a proxy
//! would go unseen.

use std::{collections::BTreeSet, net::SocketAddr};

use aya::maps::{Array, HashMap, MapData};
use chaperone_ebpf_abi::{Endpoint, MAX_PROXIES};

use crate::{Capture, CaptureError};

/// For the hooks' `PROXIES`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Key(Endpoint);

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for Key {}

impl Key {
    fn of(address: SocketAddr) -> Self {
        let port = address.port();
        Self(match address.ip().to_canonical() {
            std::net::IpAddr::V4(v4) => Endpoint::v4(u32::from_ne_bytes(v4.octets()), port),
            std::net::IpAddr::V6(v6) => {
                let bytes = v6.octets();
                let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                Endpoint::v6([word(0), word(4), word(8), word(12)], port)
            }
        })
    }
}

/// The hooks' maps of them.
pub(crate) struct Proxies {
    pub(crate) endpoints: HashMap<MapData, Key, u32>,
    pub(crate) any: Array<MapData, u32>,
    /// What is in there.
    pub(crate) captured: BTreeSet<SocketAddr>,
}

impl Capture {
    /// Captures agents' connections to these addresses and ports as well, and to no others any more.
    pub fn capture_proxies(&self, proxies: &BTreeSet<SocketAddr>) -> Result<(), CaptureError> {
        let mut maps = self.proxies.lock();
        let failed = || CaptureError::map(format!("capturing {proxies:?} (at most {MAX_PROXIES} proxies can be)"));
        if !proxies.is_empty() {
            maps.any.set(0, 1, 0).map_err(failed())?;
        }
        let wanted: Vec<Key> = proxies.iter().map(|address| Key::of(*address)).collect();
        for key in &wanted {
            maps.endpoints.insert(key, 1, 0).map_err(failed())?;
        }
        let captured: Vec<Key> = maps.endpoints.keys().collect::<Result<_, _>>().map_err(failed())?;
        for key in captured.into_iter().filter(|key| !wanted.iter().any(|wanted| wanted.0 == key.0)) {
            maps.endpoints.remove(&key).map_err(failed())?;
        }
        if proxies.is_empty() {
            maps.any.set(0, 0, 0).map_err(failed())?;
        }
        maps.captured = proxies.iter().map(|it| SocketAddr::new(it.ip().to_canonical(), it.port())).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_as_the_hooks_have_it() {
        let key = |text: &str| Key::of(text.parse().unwrap()).0;
        assert_eq!(key("10.1.2.3:3128"), Endpoint::v4(u32::from_ne_bytes([10, 1, 2, 3]), 3128));
        assert_eq!(key("[::ffff:10.1.2.3]:3128"), key("10.1.2.3:3128"));
        assert_eq!(key("[::1]:8080").address, chaperone_ebpf_abi::LOOPBACK_V6);
    }
}
