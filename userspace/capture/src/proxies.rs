//! Proxies that agents dial: connections to them are captured as those to AWS's ports are, or whatever goes through a proxy
//! would go unseen.

use std::{collections::BTreeSet, net::SocketAddr};

use chaperone_ebpf_abi::MAX_PROXIES;

use crate::{Capture, CaptureError, maps::ProxyKey};

impl Capture {
    /// Captures agents' connections to these addresses and ports as well, and to no others any more.
    pub fn capture_proxies(&self, proxies: &BTreeSet<SocketAddr>) -> Result<(), CaptureError> {
        let mut maps = self.proxies.lock();
        let failed = || CaptureError::map(format!("capturing {proxies:?} (at most {MAX_PROXIES} proxies can be)"));
        if !proxies.is_empty() {
            maps.any.set(0, 1, 0).map_err(failed())?;
        }
        let wanted: Vec<ProxyKey> = proxies.iter().map(|address| ProxyKey::of(*address)).collect();
        for key in &wanted {
            maps.endpoints.insert(key, 1, 0).map_err(failed())?;
        }
        let captured: Vec<ProxyKey> = maps.endpoints.keys().collect::<Result<_, _>>().map_err(failed())?;
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
    use chaperone_ebpf_abi::Endpoint;

    use super::*;

    #[test]
    fn an_address_is_as_the_hooks_have_it() {
        let key = |text: &str| ProxyKey::of(text.parse().unwrap()).0;
        assert_eq!(key("10.1.2.3:3128"), Endpoint::v4(u32::from_ne_bytes([10, 1, 2, 3]), 3128));
        assert_eq!(key("[::ffff:10.1.2.3]:3128"), key("10.1.2.3:3128"));
        assert_eq!(key("[::1]:8080").address, chaperone_ebpf_abi::LOOPBACK_V6);
    }
}
