//! `[upstream]`: the way to AWS.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// The way to AWS.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// CA certificates (PEM) that are trusted besides the system's, for private endpoints.
    pub ca_file: Option<PathBuf>,
}
}
