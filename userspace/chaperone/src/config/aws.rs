//! `[aws]`: what agents are told of AWS, and what the daemon is.

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// What agents are told of AWS, and what we are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aws {
    /// The region that the metadata services tell agents.
    pub region: String,
    /// The account of the daemon's credentials, where their source doesn't tell.
    pub account: Option<String>,
    /// The role name that the metadata services tell agents.
    pub role: String,
}
}

impl Default for Aws {
    fn default() -> Self {
        Self { region: "us-east-1".into(), account: None, role: "chaperone".into() }
    }
}
