//! `[proxy]`: the data path.

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// The data path.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// Names that are opened like AWS's; `*.example.com` stands for everything below.
    pub inspect: Vec<String>,
    /// Ports of the listeners on 127.0.0.1 and ::1; 0 lets the kernel choose.
    pub ports: [u16; 2],
    /// Threads of the data path; 0 for one a core.
    pub threads: usize,
}
}
