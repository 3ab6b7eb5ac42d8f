//! A session: one agent in one cgroup instance.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{CgroupId, SessionId};

/// One agent in one cgroup instance, from its first connection (or `chaperone run`) until the cgroup is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its identifier.
    pub id: SessionId,
    /// The agent's configured name: the policy's principal.
    pub agent: String,
    /// The groups that the configuration puts the agent in.
    pub groups: Vec<String>,
    /// The cgroup that makes the session.
    pub cgroup: CgroupId,
    /// Its path below the cgroup v2 root, such as `/agents/coder`.
    pub cgroup_path: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
}
