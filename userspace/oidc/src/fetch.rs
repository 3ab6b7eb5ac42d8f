//! Asking somebody else's server: one request, over TLS, without redirects, with an end in time and size.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use crate::ProviderError;

/// For one answer, from the connection's beginning to the body's end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The largest document that is read.
pub(crate) const MAX_DOCUMENT: usize = 256 << 10;

/// Asks over TLS.
#[derive(Clone, Debug)]
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    tls: std::sync::Arc<ClientConfig>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body, of at most 256 KiB.
    pub body: Bytes,
}

impl Fetch {
    /// One that verifies by these certificates, or by the host's.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
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
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, tls: std::sync::Arc::new(tls) })
    }

    /// How servers are verified, for connections that aren't HTTP's.
    pub fn tls(&self) -> std::sync::Arc<ClientConfig> {
        self.tls.clone()
    }

    /// The JSON document at `uri`.
    pub(crate) async fn json(&self, uri: &Uri) -> Result<serde_json::Value, ProviderError> {
        self.json_of(Request::get(uri)).await
    }

    /// The JSON document that this asks for, which has no body.
    pub(crate) async fn json_of(&self, request: http::request::Builder) -> Result<serde_json::Value, ProviderError> {
        let uri = request.uri_ref().cloned().unwrap_or_default();
        let failed = |why: String| ProviderError::Ask { url: uri.to_string(), why };
        let request = request.header(header::ACCEPT, "application/json").body(Bytes::new());
        let answer = self.send(request.map_err(|error| failed(error.to_string()))?, PATIENCE).await.map_err(failed)?;
        match answer.status {
            StatusCode::OK => {}
            other if other.is_redirection() => {
                return Err(failed(format!("it answered {other}: redirections aren't followed")));
            }
            other => return Err(failed(format!("it answered {other}"))),
        }
        serde_json::from_slice(&answer.body).map_err(|error| failed(format!("the answer is not JSON: {error}")))
    }

    /// Sends a request and reads the answer, all within `patience`. What went wrong, in words.
    pub async fn send(&self, request: Request<Bytes>, patience: Duration) -> Result<Answer, String> {
        let sent = tokio::time::timeout(patience, self.exchange(request)).await;
        sent.map_err(|_| format!("no answer within {} seconds", patience.as_secs()))?
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Answer, String> {
        let (mut parts, body) = request.into_parts();
        let own = http::HeaderValue::from_static(concat!("chaperone/", env!("CARGO_PKG_VERSION")));
        parts.headers.insert(header::USER_AGENT, own);
        let request = Request::from_parts(parts, Full::new(body));
        let answer = self.client.request(request).await.map_err(|error| chaperone_model::with_causes(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_DOCUMENT).collect().await;
        let body = body
            .map_err(|error| format!("the answer broke off, or has more than {MAX_DOCUMENT} bytes: {error}"))?
            .to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}
