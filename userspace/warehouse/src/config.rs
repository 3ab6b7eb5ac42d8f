//! Where the warehouse is, and the client that talks to it.

use std::{fs, path::PathBuf, time::Duration};

use clickhouse::Client;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::WarehouseError;

/// ClickHouse closes idle connections after 3 seconds by default.
const IDLE: Duration = Duration::from_secs(2);

/// Where the warehouse is.
#[derive(Clone, Debug)]
pub struct WarehouseConfig {
    /// `http://` or `https://` address of ClickHouse's HTTP interface.
    pub url: String,
    /// The database; made if it isn't there.
    pub database: String,
    /// The user; ClickHouse's default one if not set.
    pub user: Option<String>,
    /// A file that holds the user's password, and maybe a line end.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whose rows these are, where several share a database.
    pub tenant: String,
    /// This machine's name.
    pub node: String,
}

impl WarehouseConfig {
    /// A ClickHouse at `url`, with everything else as usual.
    pub fn new(url: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            database: "chaperone".into(),
            user: None,
            password_file: None,
            ca_file: None,
            tenant: String::new(),
            node: node.into(),
        }
    }

    /// A client without a database chosen: that may have to be made first.
    pub(crate) fn client(&self) -> Result<Client, WarehouseError> {
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name(&self.database) {
            let why = format!("`{}` is not made of letters, digits and underscores", self.database);
            return Err(WarehouseError::Config { setting: "database", why });
        }
        if self.url.contains('@') {
            let why = "it holds a user name or password, which would get into logs: use `user` and `password_file`";
            return Err(WarehouseError::Config { setting: "url", why: why.into() });
        }
        let client = if self.url.starts_with("https://") {
            self.tls_client()?
        } else if self.url.starts_with("http://") {
            if self.ca_file.is_some() {
                let why = "the url is plain http, which no certificate protects: use https".into();
                return Err(WarehouseError::Config { setting: "ca_file", why });
            }
            let http = HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(HttpConnector::new());
            Client::with_http_client(http)
        } else {
            let why = "it must begin with http:// or https://".into();
            return Err(WarehouseError::Config { setting: "url", why });
        };
        // Rows must be there when the answer comes, and a token must count (26.x inserts asynchronously by default,
        // where it doesn't).
        let mut client = client
            .with_url(&self.url)
            .with_product_info("chaperone", env!("CARGO_PKG_VERSION"))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1");
        if let Some(user) = &self.user {
            client = client.with_user(user);
        }
        if let Some(path) = &self.password_file {
            let password = fs::read_to_string(path).map_err(|source| WarehouseError::File {
                doing: "read the password",
                path: path.clone(),
                source,
            })?;
            client = client.with_password(password.trim_end_matches(['\r', '\n']));
        }
        Ok(client)
    }

    fn tls_client(&self) -> Result<Client, WarehouseError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca_file {
            let wrong = |why: String| WarehouseError::Config {
                setting: "ca_file",
                why: format!("`{}`: {why}", path.display()),
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        } else {
            // A certificate in the system's store that can't be read is not ours to complain about.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            let why = "there is no certificate in it (without one: in the system's store)".into();
            return Err(WarehouseError::Config { setting: "ca_file", why });
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| WarehouseError::Config { setting: "url", why: error.to_string() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        let https = HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Client::with_http_client(https))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let good = WarehouseConfig::new("http://127.0.0.1:8123", "host");
        assert!(good.client().is_ok());
        let error = |config: WarehouseConfig| config.client().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error(WarehouseConfig { url: "127.0.0.1".into(), ..good.clone() }).contains("`url`"));
        let url = "http://user:secret@127.0.0.1:8123".into();
        assert!(!error(WarehouseConfig { url, ..good.clone() }).contains("secret"));
        assert!(error(WarehouseConfig { database: "a;b".into(), ..good.clone() }).contains("`database`"));
        let ca_file = Some("/nonexistent/ca.pem".into());
        assert!(error(WarehouseConfig { ca_file: ca_file.clone(), ..good.clone() }).contains("plain http"));
        let url = "https://127.0.0.1:8443".into();
        assert!(error(WarehouseConfig { url, ca_file, ..good }).contains("/nonexistent/ca.pem"));
    }
}
