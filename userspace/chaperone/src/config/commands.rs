//! `[commands]`: what agents execute.

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// What agents execute.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandsSection {
    /// Regular expressions for secrets in arguments, beside those that are always masked. Group 1 is masked, or all that
    /// is found if there is no group.
    pub mask: Vec<String>,
}
}
