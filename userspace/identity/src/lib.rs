//! Which agent a process is: cgroups to sessions.
//!
//! It owns the configured agents and the sessions that are open, watches their cgroups and ends a session when its
//! cgroup is empty. It never decides what an agent may do. It fails closed: a cgroup that no configured agent claims
//! has no session, and a connection without a session is refused.

#![forbid(unsafe_code)]

mod agents;
mod container_rules;
mod containers;
mod rules;
mod sessions;

pub use agents::{Agent, AgentError, Agents, Ambiguous, IdentityNeed};
pub use container_rules::ContainerRule;
pub use containers::{Containers, EngineFolders};
pub use rules::{Rule, RuleKind};
pub use sessions::{Ended, Ownership, Resolved, SessionError, Sessions};
