//! Asking a provider: one GET, over TLS, without redirects, with an end in time and size.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use crate::ProviderError;

/// For one answer, from the connection's beginning to the body's end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest document that is read.
pub(crate) const MAX_DOCUMENT: usize = 256 << 10;

/// Asks over TLS.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Fetch {
    /// One that verifies by these certificates, or by the host's.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = ca_file {
            let text = fs::read(path).map_err(|error| format!("ca_file: reading {}: {error}", path.display()))?;
            let all = pem::parse_many(text).map_err(|error| format!("ca_file {}: {error}", path.display()))?;
            for one in all.into_iter().filter(|one| one.tag() == "CERTIFICATE") {
                let added = roots.add(CertificateDer::from(one.into_contents()));
                added.map_err(|error| format!("ca_file {}: {error}", path.display()))?;
            }
            if roots.is_empty() {
                return Err(format!("ca_file {}: there is no certificate in it", path.display()));
            }
        } else {
            // A host without any can still have issuers with files of their own.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Which schemes may be asked, `Issuer::url` has said.
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector) })
    }

    /// The JSON document at `uri`.
    pub(crate) async fn json(&self, uri: &Uri) -> Result<serde_json::Value, ProviderError> {
        let failed = |why: String| ProviderError::Ask { url: uri.to_string(), why };
        let bytes = tokio::time::timeout(PATIENCE, self.get(uri))
            .await
            .map_err(|_| failed(format!("no answer within {} seconds", PATIENCE.as_secs())))?
            .map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(|error| failed(format!("the answer is not JSON: {error}")))
    }

    async fn get(&self, uri: &Uri) -> Result<Bytes, String> {
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("chaperone/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| chaperone_model::with_causes(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            other if other.is_redirection() => {
                return Err(format!("it answered {other}: redirections aren't followed"));
            }
            other => return Err(format!("it answered {other}")),
        }
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT).collect().await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|error| format!("the answer broke off, or has more than {MAX_DOCUMENT} bytes: {error}"))
    }
}
