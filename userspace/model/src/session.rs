//! A session: one agent in one cgroup instance.

use std::collections::BTreeMap;

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
    /// The container that the cgroup is, if it is one: as its engine describes it, which authorises nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The session inside of whose cgroup it began, as one of a container that an agent starts does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SessionId>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
}

/// A container, by its engine's own state on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// Its name; empty if the engine's state can't be read, as all below.
    pub name: String,
    /// The image, as it was named when the container was made.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// Its labels, the image's among them.
    pub labels: BTreeMap<String, String>,
}

/// Who an agent is, by a token that its identity provider signed. Never the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The issuer's name in the configuration.
    pub provider: String,
    /// The token's `iss`.
    pub issuer: String,
    /// Who it is, as the configuration maps it.
    pub subject: String,
    /// The groups that the token puts it in, with the configured prefix.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The person whom the agent works for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sponsor: Option<String>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The token's `jti`; without one, the SHA-256 of the signed part.
    pub token_id: String,
    /// Claims that the configuration keeps, by the names that it gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// When the token ends, by its `exp`.
    #[serde(with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
}

impl Identity {
    /// Whether both are the same one: a fresh token of the same subject.
    pub fn is_of_same_subject(&self, other: &Self) -> bool {
        (&self.issuer, &self.subject) == (&other.issuer, &other.subject)
    }
}
