//! The clients that talk to ClickHouse: one for each address, over TLS with whom the configuration trusts and what it
//! shows of itself.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clickhouse::Client;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{WarehouseConfig, WarehouseError};

/// ClickHouse closes idle connections after 3 seconds by default.
const IDLE: Duration = Duration::from_secs(2);
/// A server that is there takes a connection sooner.
const CONNECT: Duration = Duration::from_secs(5);

/// A client for each address, in their order, without a database chosen: that may have to be made first.
pub(crate) fn clients(config: &WarehouseConfig) -> Result<Vec<Client>, WarehouseError> {
    config.check()?;
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(CONNECT));
    let tls = if config.urls.iter().any(|url| url.starts_with("https://")) { Some(tls(config)?) } else { None };
    let password = config.password_file.as_deref().map(password).transpose()?;
    let client = |url: &String| {
        let mut http = http.clone();
        let client = match &tls {
            Some(tls) if url.starts_with("https://") => {
                http.enforce_http(false);
                let connector = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_tls_config(tls.clone())
                    .https_only()
                    .enable_http1()
                    .wrap_connector(http);
                let https = HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
                Client::with_http_client(https)
            }
            _ => {
                http.enforce_http(true);
                let http = HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(http);
                Client::with_http_client(http)
            }
        };
        // Rows must be there when the answer comes, and a token must count (26.x inserts asynchronously by default,
        // where it doesn't).
        let mut client = client
            .with_url(url)
            .with_product_info("chaperone", env!("CARGO_PKG_VERSION"))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1");
        if config.cluster.is_some() {
            // A replica that is away makes its tables when it comes back: nobody waits for it.
            client = client.with_setting("distributed_ddl_output_mode", "throw_only_active");
        }
        if let Some(user) = &config.user {
            client = client.with_user(user);
        }
        if let Some(password) = &password {
            client = client.with_password(password);
        }
        client
    };
    Ok(config.urls.iter().map(client).collect())
}

/// What tells whether the files that clients are made of have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

impl Stamp {
    pub(crate) fn of(config: &WarehouseConfig) -> Self {
        let files = [&config.password_file, &config.ca_file, &config.client_cert_file, &config.client_key_file];
        let stamp = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        Self(files.into_iter().flatten().map(stamp).collect())
    }
}

fn password(path: &Path) -> Result<String, WarehouseError> {
    let text = fs::read_to_string(path).map_err(|source| WarehouseError::File {
        doing: "read the password",
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn tls(config: &WarehouseConfig) -> Result<ClientConfig, WarehouseError> {
    let wrong = |setting: &str, why: String| WarehouseError::Config { setting: setting.into(), why };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("url", error.to_string()))?
        .with_root_certificates(roots(config)?);
    let (Some(certificate), Some(key)) = (&config.client_cert_file, &config.client_key_file) else {
        return Ok(tls.with_no_client_auth());
    };
    let chain = certificates(certificate).map_err(|why| wrong("client_cert_file", why))?;
    let key_of = private_key(key).map_err(|why| wrong("client_key_file", why))?;
    tls.with_client_auth_cert(chain, key_of).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        wrong("client_key_file", format!("`{key}` is not the key of the certificate in `{certificate}`: {error}"))
    })
}

fn roots(config: &WarehouseConfig) -> Result<RootCertStore, WarehouseError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &config.ca_file else {
        // A certificate in the system's store that can't be read is not ours to complain about.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let why = "it isn't given, and there is no certificate in the system's store".to_owned();
            return Err(WarehouseError::Config { setting: "ca_file".into(), why });
        }
        return Ok(roots);
    };
    let wrong = |why: String| WarehouseError::Config { setting: "ca_file".into(), why };
    for certificate in certificates(path).map_err(wrong)? {
        roots.add(certificate).map_err(|error| wrong(format!("`{}`: {error}", path.display())))?;
    }
    Ok(roots)
}

/// The certificates in a file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls::pki_types::pem::Error| format!("`{}`: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() {
        return Err(format!("`{}`: there is no certificate (PEM) in it", path.display()));
    }
    Ok(found)
}

/// The key in a file that nobody but its owner can read.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let about = path.display();
    let found = fs::metadata(path).map_err(|error| format!("`{about}`: {error}"))?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("`{about}`: others than its owner may use it (mode {mode:03o}): chmod 600 {about}"));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("`{about}`: {error}"))
}
