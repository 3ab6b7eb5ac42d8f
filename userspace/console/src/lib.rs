//! The control API on a root-only unix socket, and Prometheus metrics on a loopback address.
//!
//! It never sits on the data path and never sees a body. It fails closed: the control socket is made so that nobody but root
//! can open it, or it isn't made; who else may register sessions asks at another one, and nothing else is done there.

#![forbid(unsafe_code)]

mod actor;
mod api;
mod approvals;
mod client;
mod log_limit;
mod metrics;
mod registrars;
mod server;

pub use actor::Actor;
pub use api::{ControlError, ControlRequest, ControlResponse, ErrorCode, Launch, Resumed, Stopped, Token};
pub use approvals::{ApprovalBackend, ApprovalRequest, ApprovalResponse, Peer, approvals, serve_approvals};
pub use client::{ClientError, request};
pub use log_limit::LogLimit;
pub use metrics::{Kind, Metric};
pub use registrars::serve_registrars;
pub use server::{Backend, ConsoleError, control, serve_control, serve_metrics};
