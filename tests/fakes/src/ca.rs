//! The fakes' CA: `ca.crt` and `ca.key` in the lab's folder, and a leaf for every name that is asked for.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::{Duration, OffsetDateTime};

/// Leaves that are kept; when there are more, all are made anew.
const KEPT: usize = 4096;

/// A CA that vouches for every name.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Takes the CA that is in the folder, or makes one there.
    pub fn open_or_create(dir: &Path) -> anyhow::Result<Arc<Self>> {
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making the leaves' key")?;
        let issuer = if certificate.exists() {
            let pem = fs::read_to_string(&key).with_context(|| format!("reading {}", key.display()))?;
            let pair = KeyPair::from_pem(&pem).with_context(|| format!("parsing {}", key.display()))?;
            let pem = fs::read_to_string(&certificate).with_context(|| format!("reading {}", certificate.display()))?;
            Issuer::from_ca_cert_pem(&pem, pair).with_context(|| format!("parsing {}", certificate.display()))?
        } else {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making the CA's key")?;
            let parameters = ca_parameters();
            let made = parameters.self_signed(&pair).context("making the CA")?;
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&key)
                .and_then(|mut file| file.write_all(pair.serialize_pem().as_bytes()))
                .with_context(|| format!("writing {}", key.display()))?;
            fs::write(&certificate, made.pem()).with_context(|| format!("writing {}", certificate.display()))?;
            Issuer::new(parameters, pair)
        };
        Ok(Arc::new(Self { issuer, leaf_key, leaves: Mutex::default() }))
    }

    /// A TLS server that speaks HTTP/1.1 and HTTP/2.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("configuring TLS")?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn leaf(&self, name: &str) -> anyhow::Result<Arc<CertifiedKey>> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(name) {
            return Ok(leaf.clone());
        }
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).context("naming a leaf")?;
        validity(&mut parameters);
        parameters.distinguished_name = DistinguishedName::new();
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let leaf = parameters.signed_by(&self.leaf_key, &self.issuer).context("signing a leaf")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).context("taking the leaves' key")?;
        let leaf = Arc::new(CertifiedKey::new(vec![leaf.der().clone()], key));
        if leaves.len() >= KEPT {
            leaves.clear();
        }
        leaves.insert(name.to_owned(), leaf.clone());
        Ok(leaf)
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or("127.77.0.1");
        self.leaf(name).inspect_err(|error| tracing::warn!("no leaf for {name}: {error:#}")).ok()
    }
}

fn ca_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    validity(&mut parameters);
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "Fake AWS of a Chaperone lab");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn validity(parameters: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - Duration::hours(1);
    parameters.not_after = now + Duration::days(30);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_outlives_the_process_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let first = Authority::open_or_create(dir).unwrap();
        let certificate = fs::read(dir.join("ca.crt")).unwrap();
        let second = Authority::open_or_create(dir).unwrap();
        assert_eq!(certificate, fs::read(dir.join("ca.crt")).unwrap());
        assert_eq!(fs::metadata(dir.join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
        for authority in [first, second] {
            let leaf = authority.leaf("sts.eu-west-1.amazonaws.com").unwrap();
            assert!(Arc::ptr_eq(&leaf, &authority.leaf("sts.eu-west-1.amazonaws.com").unwrap()));
        }
    }
}
