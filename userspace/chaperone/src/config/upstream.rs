//! `[upstream]`: the way to AWS.

use std::path::PathBuf;

use chaperone_proxy::HttpProxy;
use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// The way to AWS.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// CA certificates (PEM) that are trusted besides the system's, for private endpoints.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy that the daemon goes by, to AWS and with what it passes on, in an `[upstream.proxy]` of its own: `url`,
    /// such as `http://proxy.example:3128`; `credentials_file`, with `user:password` in its one line; `no_proxy`, a list of
    /// names (each with all below it), addresses, networks or `*` that need none.
    pub proxy: Option<UpstreamProxy>,
}
}

/// `[upstream.proxy]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamProxy {
    url: String,
    credentials_file: Option<PathBuf>,
    #[serde(default)]
    no_proxy: Vec<String>,
}

impl Upstream {
    /// The proxy, checked.
    pub fn http_proxy(&self) -> Result<Option<HttpProxy>, String> {
        let Some(UpstreamProxy { url, credentials_file, no_proxy }) = &self.proxy else { return Ok(None) };
        let proxy = HttpProxy::new(url, credentials_file.as_deref(), no_proxy);
        proxy.map(Some).map_err(|why| format!("upstream.proxy: {why}"))
    }
}
