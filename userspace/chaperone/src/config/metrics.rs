//! `[metrics]`: Prometheus.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// Prometheus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where metrics are served; nowhere if not given. It must be a loopback address.
    pub listen: Option<SocketAddr>,
}
}
