//! The data path: accept, peek, pass on or open, and one request after the other to AWS and back.
//!
//! It owns the agents' sockets and the connections to AWS. It never decides by itself what may happen, and never
//! collects a body beyond the configured bounds. It fails closed: without an origin, a session, a record or a verified
//! upstream, nothing goes on.

#![forbid(unsafe_code)]

mod approvals;
pub mod body;
mod budgets;
pub mod call;
mod commands;
pub mod connection;
mod data_plane;
mod generation;
pub mod http;
mod identified;
pub mod identities;
mod limits;
mod masking;
mod metrics;
mod session_vault;
mod sessions;
mod stops;
mod upstream;
pub mod websocket;

pub use approvals::{AnswerFailed, ApprovalDesk, ApprovalSettings, HoldError};
pub use budgets::{BudgetDesk, BudgetError};
pub use data_plane::{Components, DataPlane, SessionContext};
pub use generation::{Generation, Settings};
pub use identities::{AgentIdentity, Identities, IdentitySettings, IdentityState};
pub use limits::Limits;
pub use masking::{MaskingSettings, OnError, Placeholders};
pub use metrics::{CallLabels, Calls, Count, Durations, Gauge, Metrics, OverShare, Shared};
pub use session_vault::VaultLimits;
pub use stops::{Stop, Stopped, Stops, StopsError};
pub use upstream::credential_broker::{CredentialBroker, Rule, SigningIdentity};
pub use upstream::http_proxy::HttpProxy;
pub use upstream::pool::{Roots, RootsError, Upstream, UpstreamError, roots};
