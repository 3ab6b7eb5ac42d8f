//! TLS to ClickHouse: whom it is believed by, and what is shown of us.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use crate::{
    Warehouse, WarehouseConfig,
    relay_tests::Relay,
    server_tests::{Server, journal, one_call, raw, samples, ship_all, shipper},
};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }
}

/// A server's side that demands a certificate of `clients`.
fn server_config(server: &Ca, clients: &Ca) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (certificate, key) = server.issue("127.0.0.1");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), provider.clone());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

fn write(path: &Path, text: &str, mode: u32) {
    // As somebody does who exchanges a file: in one step.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(folder: &Path, server: &Ca) -> Self {
        let files = Self { ca: folder.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        write(&files.ca, &server.certificate.pem(), 0o644);
        files
    }

    fn show(&self, clients: &Ca) {
        let (certificate, key) = clients.issue("host");
        write(&self.cert, &certificate.pem(), 0o644);
        write(&self.key, &key.serialize_pem(), 0o600);
    }

    fn config(&self, url: String) -> WarehouseConfig {
        WarehouseConfig {
            ca_file: Some(self.ca.clone()),
            client_cert_file: Some(self.cert.clone()),
            client_key_file: Some(self.key.clone()),
            ..WarehouseConfig::new(url, "node")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_by_tls_with_an_own_ca_and_a_certificate_that_can_be_exchanged() {
    let (data, dir, folder) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let (ours, clients, strangers) = (Ca::new(), Ca::new(), Ca::new());
    let way = Relay::start(server.http(), Some(server_config(&ours, &clients))).await;
    let files = Files::new(folder.path(), &ours);
    files.show(&strangers);
    let warehouse = Warehouse::new(files.config(way.url())).unwrap();
    // Whose certificate the server doesn't know gets nowhere; nor does who has none, or whom we don't believe.
    warehouse.ping().await.unwrap_err();
    let bare = WarehouseConfig { client_cert_file: None, client_key_file: None, ..files.config(way.url()) };
    Warehouse::new(bare).unwrap().ping().await.unwrap_err();
    let stranger = folder.path().join("stranger.pem");
    write(&stranger, &strangers.certificate.pem(), 0o644);
    files.show(&clients);
    let unbelieved = WarehouseConfig { ca_file: Some(stranger), ..files.config(way.url()) };
    Warehouse::new(unbelieved).unwrap().ping().await.unwrap_err();

    // The file was exchanged: the handle that there is takes the new one, and records arrive.
    warehouse.refresh().unwrap();
    assert!(warehouse.ping().await.unwrap().starts_with("26."));
    let journal = journal(dir.path());
    let session = samples::session();
    for n in 0..20 {
        one_call(&journal, &session, n).await;
    }
    // A file that makes no sense is told, and what was in force before stays.
    write(&files.cert, "nonsense", 0o644);
    assert!(warehouse.refresh().unwrap_err().to_string().contains("cert.pem"));
    ship_all(shipper(&warehouse, &journal), &journal).await;
    assert_eq!(raw(&warehouse, "SELECT count() FROM calls").await, 20);
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, clients) = (Ca::new(), Ca::new());
    let files = Files::new(folder.path(), &ours);
    files.show(&clients);
    let config = files.config("https://127.0.0.1:1".into());
    let error = || Warehouse::new(config.clone()).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(error(), "");
    let key = fs::read_to_string(&files.key).unwrap();
    for mode in [0o640, 0o604, 0o644, 0o620, 0o601, 0o660] {
        write(&files.key, &key, mode);
        assert!(error().contains("`client_key_file`") && error().contains("chmod 600"), "{mode:o}: {}", error());
    }
    write(&files.key, "", 0o600);
    assert!(error().contains("`client_key_file`") && error().contains("key.pem"), "{}", error());
    let (_, other) = clients.issue("other");
    write(&files.key, &other.serialize_pem(), 0o600);
    assert!(error().contains("is not the key of the certificate"), "{}", error());
    write(&files.key, &key, 0o400);
    assert_eq!(error(), "");
    for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let good = fs::read_to_string(&files.cert).unwrap();
        write(&files.cert, text, 0o644);
        assert!(error().contains("client_") && error().contains("cert.pem"), "{text}: {}", error());
        write(&files.cert, &good, 0o644);
        let good = fs::read_to_string(&files.ca).unwrap();
        write(&files.ca, text, 0o644);
        assert!(error().contains("`ca_file`") && error().contains("ca.pem"), "{text}: {}", error());
        write(&files.ca, &good, 0o644);
    }
    fs::remove_file(&files.key).unwrap();
    assert!(error().contains("`client_key_file`") && error().contains("key.pem"), "{}", error());
}
