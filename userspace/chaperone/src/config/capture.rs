//! `[capture]`: the kernel hooks.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, ToSocketAddrs as _},
};

use chaperone_capture::LsmHooks;
use serde::{Deserialize, Serialize};

use super::ConfigError;

chaperone_model::documented! {
/// The kernel hooks.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSection {
    /// Whether the daemon starts where the kernel doesn't take the hooks of the LSM.
    pub lsm: Lsm,
    /// Users, by name or number, whose processes are agents' wherever they are: outside of enrolled cgroups they get no
    /// network.
    pub users: Vec<String>,
    /// HTTP proxies that agents dial (`HTTPS_PROXY`), as `HOST:PORT`: what they are asked for is judged as if agents went there
    /// by themselves. Names are looked up when the daemon starts.
    pub proxies: Vec<String>,
}
}

impl CaptureSection {
    /// The users' ids.
    pub fn user_ids(&self) -> Result<BTreeSet<u32>, ConfigError> {
        let (ids, mut wrong) = self.known_user_ids();
        if wrong.is_empty() { Ok(ids) } else { Err(wrong.remove(0)) }
    }

    /// Where the proxies are.
    pub fn proxy_addresses(&self) -> Result<BTreeSet<SocketAddr>, ConfigError> {
        let (addresses, mut wrong) = self.known_proxy_addresses();
        if wrong.is_empty() { Ok(addresses) } else { Err(wrong.remove(0)) }
    }

    /// Where those are that can be looked up, and what is wrong with the others.
    pub fn known_proxy_addresses(&self) -> (BTreeSet<SocketAddr>, Vec<ConfigError>) {
        let (mut addresses, mut wrong) = (BTreeSet::new(), Vec::new());
        for proxy in &self.proxies {
            match proxy.to_socket_addrs() {
                Ok(found) => addresses.extend(found.map(|it| SocketAddr::new(it.ip().to_canonical(), it.port()))),
                Err(error) => {
                    wrong.push(ConfigError(format!("capture.proxies: `{proxy}`: {error}; write HOST:PORT")));
                }
            }
        }
        (addresses, wrong)
    }

    /// The ids of those that there are and that can be bound, and what is wrong with the others.
    pub fn known_user_ids(&self) -> (BTreeSet<u32>, Vec<ConfigError>) {
        let (mut ids, mut wrong) = (BTreeSet::new(), Vec::new());
        for user in &self.users {
            match user_id(user) {
                Ok(0) => wrong.push("root can't be bound: the host's own services are root's".to_owned()),
                Ok(id) => drop(ids.insert(id)),
                Err(why) => wrong.push(why),
            }
        }
        (ids, wrong.into_iter().map(|why| ConfigError(format!("capture.users: {why}"))).collect())
    }
}

/// The id of a user by name or number.
pub fn user_id(user: &str) -> Result<u32, String> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    match nix::unistd::User::from_name(user) {
        Ok(Some(found)) => Ok(found.uid.as_raw()),
        Ok(None) => Err(format!("there is no user `{user}` on this host")),
        Err(error) => Err(format!("looking up `{user}`: {error}")),
    }
}

/// What to do where the kernel doesn't take the hooks of the LSM.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Lsm {
    /// The daemon doesn't start.
    #[default]
    Required,
    /// It says what agents can do for the lack of them, and goes on.
    Optional,
}

impl From<Lsm> for LsmHooks {
    fn from(lsm: Lsm) -> Self {
        match lsm {
            Lsm::Required => Self::Required,
            Lsm::Optional => Self::WhereAvailable,
        }
    }
}
