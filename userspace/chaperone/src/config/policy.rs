//! `[policy]`: the policies.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// The policies.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// A `.cedar` file or a folder of them.
    pub path: PathBuf,
}
}

impl Default for Policy {
    fn default() -> Self {
        Self { path: "/etc/chaperone/policies".into() }
    }
}
