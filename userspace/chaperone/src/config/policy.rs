//! `[policy]`: the policies.

use std::path::PathBuf;

use chaperone_policy::{PolicyVersion, TimeZone, nearest};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::daemon::KnownActions;

chaperone_model::documented! {
/// The policies.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// A `.cedar` file or a folder of them.
    pub path: PathBuf,
    /// The zone of `context.hour`, `context.weekday` and their like, by its IANA name, such as `Europe/Berlin`.
    pub time_zone: String,
}
}

impl Default for Policy {
    fn default() -> Self {
        Self { path: "/etc/chaperone/policies".into(), time_zone: "UTC".into() }
    }
}

impl Policy {
    /// Reads and checks the policies.
    pub fn read(&self) -> Result<PolicyVersion, ConfigError> {
        let time_zone = self.zone()?;
        let version = PolicyVersion::read(&self.path, &KnownActions).map_err(|error| ConfigError(error.to_string()))?;
        Ok(version.in_zone(time_zone))
    }

    /// The zone, checked.
    pub fn zone(&self) -> Result<TimeZone, ConfigError> {
        let zone =
            || TimeZone::get(&self.time_zone).ok().or_else(|| (self.time_zone == "UTC").then_some(TimeZone::UTC));
        zone().ok_or_else(|| {
            let known: Vec<String> = chaperone_policy::time_zones().collect();
            let meant = nearest(&self.time_zone, known.iter().map(String::as_str));
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            ConfigError(format!(
                "policy.time_zone: there is no time zone `{}`{meant} (an IANA name such as Europe/Berlin, or UTC)",
                self.time_zone
            ))
        })
    }
}
