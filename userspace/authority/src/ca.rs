//! The CA on disk and the leaves in memory.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    PublicKeyData, RsaKeySize,
};
use rustls::{
    CipherSuite, SignatureScheme,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A CA lives this long; `trust install --renew` makes a new one.
const CA_DAYS: i64 = 5 * 365;
/// A leaf lives this long, and is replaced a day before its end.
const LEAF_DAYS: i64 = 8;
/// Leaves kept in memory, about 1.5 KiB each. An agent that asks for more names makes the cache start over.
const MAX_LEAVES: usize = 4096;

/// What is wrong with the CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate or key can't be read as such.
    #[error(
        "the CA in {path} can't be used: {why}; restore it, or remove both files and run `chaperone trust install`"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key can be read by others than its owner.
    #[error("{path} can be read by others (mode {mode:o}): make it 0600, and renew the CA if anyone may have read it")]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// There is no CA.
    #[error("there is no CA in {0}: run `chaperone trust install`")]
    Missing(PathBuf),
    /// A name that the configuration wants opened is outside what the CA may vouch for.
    #[error("the CA in {path} may not vouch for `{name}`: run `chaperone trust install --renew` to make one that may")]
    Outside {
        /// The CA.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A file could not be read or written.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("making a certificate for `{0}`: {1}")]
    Issue(String, rcgen::Error),
}

/// The local CA, ready to issue leaves. Its key never leaves this type, and its certificate carries name constraints
/// (RFC 5280, 4.2.1.10), so that it can impersonate nothing but the given domains even if it is stolen.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    permitted: Vec<String>,
    leaves: Leaves,
    /// For clients that know RSA alone; made when the first of them comes.
    rsa: OnceLock<Leaves>,
    path: PathBuf,
}

/// One key, and the leaves that were issued for it.
struct Leaves {
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    issued: RwLock<HashMap<String, (Arc<CertifiedKey>, OffsetDateTime)>>,
}

impl Leaves {
    fn new(key: KeyPair) -> Result<Self, rustls::Error> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self { key, signer: any_supported_type(&der)?, issued: RwLock::default() })
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("path", &self.path).finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Opens the CA in `dir` (`ca.crt`, `ca.key`), or makes one there that may vouch for `domains` and everything
    /// below each.
    pub fn open_or_create(dir: &Path, domains: &[String]) -> Result<Self, AuthorityError> {
        match Self::open(dir) {
            Err(AuthorityError::Missing(_)) => Self::create(dir, domains),
            other => other,
        }
    }

    /// Opens the CA in `dir`.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (crt, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !crt.exists() && !key.exists() {
            return Err(AuthorityError::Missing(dir.to_owned()));
        }
        let mode = fs::metadata(&key).map_err(|source| io("reading", &key, source))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(AuthorityError::Exposed { path: key, mode });
        }
        let pem = fs::read_to_string(&key).map_err(|source| io("reading", &key, source))?;
        let pair = KeyPair::from_pem(&pem).map_err(|why| broken(&key, &why))?;
        let certificate = CertificateDer::from_pem_file(&crt).map_err(|why| broken(&crt, &why))?;
        Self::assemble(crt, certificate, pair)
    }

    /// Makes a new CA in `dir`, replacing one that is there.
    pub fn create(dir: &Path, domains: &[String]) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(|source| io("making", dir, source))?;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| AuthorityError::Issue("CA".into(), e))?;
        let certificate =
            ca_parameters(domains).self_signed(&pair).map_err(|e| AuthorityError::Issue("CA".into(), e))?;
        let (crt, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        replace(&key, pair.serialize_pem().as_bytes(), 0o600)?;
        replace(&crt, certificate.pem().as_bytes(), 0o644)?;
        Self::assemble(crt, certificate.der().clone(), pair)
    }

    fn assemble(path: PathBuf, certificate: CertificateDer<'static>, pair: KeyPair) -> Result<Self, AuthorityError> {
        let permitted = {
            let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|why| broken(&path, &why))?;
            if parsed.public_key().raw != pair.subject_public_key_info() {
                return Err(broken(&path, &"the certificate is for another key than ca.key"));
            }
            if !parsed.validity().is_valid() {
                return Err(broken(&path, &format!("it was valid until {} only", parsed.validity().not_after)));
            }
            permitted_domains(&parsed)
        };
        if permitted.is_empty() {
            return Err(broken(&path, &"it carries no name constraints, so it could impersonate any site"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, pair).map_err(|why| broken(&path, &why))?;
        let leaf_key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| AuthorityError::Issue("leaves".into(), e))?;
        let leaves = Leaves::new(leaf_key).map_err(|why| broken(&path, &why))?;
        Ok(Self { issuer, certificate, permitted, leaves, rsa: OnceLock::new(), path })
    }

    /// Until when the CA's certificate is valid.
    pub fn expires(&self) -> OffsetDateTime {
        let parsed = X509Certificate::from_der(&self.certificate);
        parsed.map_or(OffsetDateTime::UNIX_EPOCH, |(_, parsed)| parsed.validity().not_after.to_datetime())
    }

    /// The CA's certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Where the CA's certificate lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the CA may vouch for this name.
    pub fn may_vouch_for(&self, name: &str) -> bool {
        self.permitted.iter().any(|domain| is_within(name, domain))
    }

    /// Checks that the CA may vouch for all these names.
    pub fn check(&self, names: &[String]) -> Result<(), AuthorityError> {
        match names.iter().find(|name| !self.may_vouch_for(name)) {
            Some(name) => Err(AuthorityError::Outside { path: self.path.clone(), name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The leaf for exactly this lower-case name, from memory or newly issued (about 60 µs). One-label wildcards
    /// would not do: names such as `api.ecr.us-east-1.amazonaws.com` have several labels.
    pub fn leaf(&self, name: &str) -> Result<Arc<CertifiedKey>, AuthorityError> {
        self.leaf_of(name, &self.leaves)
    }

    /// As [`leaf`](Self::leaf), for a key of RSA's, which takes a tenth of a second or so to be made the first time.
    pub fn rsa_leaf(&self, name: &str) -> Result<Arc<CertifiedKey>, AuthorityError> {
        if let Some(leaves) = self.rsa.get() {
            return self.leaf_of(name, leaves);
        }
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
            .map_err(|error| AuthorityError::Issue("RSA leaves".into(), error))?;
        let leaves = Leaves::new(key).map_err(|why| broken(&self.path, &why))?;
        self.leaf_of(name, self.rsa.get_or_init(|| leaves))
    }

    fn leaf_of(&self, name: &str, leaves: &Leaves) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        if let Some((leaf, until)) = leaves.issued.read().get(name)
            && *until > now
        {
            return Ok(leaf.clone());
        }
        if !self.may_vouch_for(name) {
            return Err(AuthorityError::Outside { path: self.path.clone(), name: name.to_owned() });
        }
        let end = now + Duration::days(LEAF_DAYS);
        let certificate = leaf_parameters(name, now, end)
            .and_then(|parameters| parameters.signed_by(&leaves.key, &self.issuer))
            .map_err(|e| AuthorityError::Issue(name.to_owned(), e))?;
        // Without the CA itself: clients have it, and it would cost each handshake half a kilobyte.
        let leaf = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], leaves.signer.clone()));
        let mut issued = leaves.issued.write();
        if issued.len() >= MAX_LEAVES {
            issued.clear();
        }
        issued.insert(name.to_owned(), (leaf.clone(), end - Duration::days(1)));
        Ok(leaf)
    }
}

impl ResolvesServerCert for CertificateAuthority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let leaf = if takes_ecdsa(&hello) { self.leaf(&name) } else { self.rsa_leaf(&name) };
        leaf.inspect_err(|error| tracing::warn!(%error, "no leaf")).ok()
    }
}

/// Whether a client can do with a key of ECDSA's: some of TLS 1.2 have its suites for RSA alone.
fn takes_ecdsa(hello: &ClientHello<'_>) -> bool {
    use CipherSuite as Suite;
    let signs = hello.signature_schemes().contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
    let agrees = |suite: &Suite| {
        matches!(
            *suite,
            Suite::TLS13_AES_128_GCM_SHA256
                | Suite::TLS13_AES_256_GCM_SHA384
                | Suite::TLS13_CHACHA20_POLY1305_SHA256
                | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        )
    };
    signs && hello.cipher_suites().iter().any(agrees)
}

fn ca_parameters(domains: &[String]) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    // An hour back: the clocks of containers and of fresh machines differ a little.
    parameters.not_before = now - Duration::hours(1);
    parameters.not_after = now + Duration::days(CA_DAYS);
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Chaperone");
    name.push(DnType::CommonName, format!("Chaperone local CA {}", now.date()));
    parameters.distinguished_name = name;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: domains.iter().cloned().map(GeneralSubtree::DnsName).collect(),
        // A permitted DNS subtree says nothing about addresses: those are shut out whole.
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    });
    parameters
}

fn leaf_parameters(name: &str, now: OffsetDateTime, end: OffsetDateTime) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
    parameters.not_before = now - Duration::hours(1);
    parameters.not_after = end;
    let mut subject = DistinguishedName::new();
    // RFC 5280 bounds a common name to 64 characters; the subject alternative name is what counts.
    subject.push(DnType::CommonName, if name.len() <= 64 { name } else { "Chaperone" });
    parameters.distinguished_name = subject;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // OpenSSL with X509_V_FLAG_X509_STRICT (Python 3.13's default) wants the authority key identifier.
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn permitted_domains(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(constraints)) = certificate.name_constraints() else { return Vec::new() };
    let permitted = constraints.value.permitted_subtrees.iter().flatten();
    permitted
        .filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(name) => Some(name.trim_start_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Whether `name` is `domain` or below it.
fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Writes by way of a temporary file, so that a reader or a crash never meets half of it.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| io("writing", path, source))
}

fn io(doing: &'static str, path: &Path, source: std::io::Error) -> AuthorityError {
    AuthorityError::Io { doing, path: path.to_owned(), source }
}

fn broken(path: &Path, why: &dyn std::fmt::Display) -> AuthorityError {
    AuthorityError::Broken { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::{ServerName, UnixTime},
    };

    fn verify(authority: &CertificateAuthority, leaf: &CertifiedKey, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        verifier
            .verify_server_cert(
                &leaf.cert[0],
                &[],
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                UnixTime::now(),
            )
            .map(|_| ())
    }

    #[test]
    fn a_leaf_verifies_for_its_name_alone() {
        let authority =
            CertificateAuthority::create(tempfile::tempdir().unwrap().path(), &["amazonaws.com".into()]).unwrap();
        let leaf = authority.leaf("api.ecr.us-east-1.amazonaws.com").unwrap();
        verify(&authority, &leaf, "api.ecr.us-east-1.amazonaws.com").unwrap();
        verify(&authority, &leaf, "s3.amazonaws.com").unwrap_err();
    }

    /// By its suites, as `ECDHE-RSA-…` alone in a configuration of OpenSSL's makes it, or by its signature schemes.
    #[test]
    fn a_client_of_tls_1_2_that_knows_rsa_alone_is_served() {
        use rustls::crypto::aws_lc_rs::{cipher_suite as suites, default_provider};
        let authority =
            CertificateAuthority::create(tempfile::tempdir().unwrap().path(), &["amazonaws.com".into()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let authority = Arc::new(authority);
        let server = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(authority.clone());
        let server = Arc::new(server);
        let shake = |suites: Vec<rustls::SupportedCipherSuite>, version: &'static rustls::SupportedProtocolVersion| {
            let mut provider = default_provider();
            provider.cipher_suites = suites;
            let client = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            let name = ServerName::try_from("s3.amazonaws.com").unwrap();
            let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
            let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
            while client.is_handshaking() {
                let mut wire = Vec::new();
                client.write_tls(&mut wire).unwrap();
                server.read_tls(&mut &wire[..]).unwrap();
                server.process_new_packets().unwrap();
                wire.clear();
                server.write_tls(&mut wire).unwrap();
                client.read_tls(&mut &wire[..]).unwrap();
                client.process_new_packets().unwrap();
            }
            format!("{:?}", client.negotiated_cipher_suite().unwrap().suite())
        };
        let of_rsa = vec![suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        assert!(authority.rsa.get().is_none());
        assert!(shake(vec![suites::TLS13_AES_128_GCM_SHA256], &rustls::version::TLS13).starts_with("TLS13"));
        assert!(authority.rsa.get().is_none(), "it is made for those who need it");
        assert_eq!(shake(of_rsa, &rustls::version::TLS12), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        assert!(authority.rsa.get().is_some());
        verify(&authority, &authority.rsa_leaf("s3.amazonaws.com").unwrap(), "s3.amazonaws.com").unwrap();
        assert!(matches!(authority.rsa_leaf("example.com"), Err(AuthorityError::Outside { .. })));
    }

    #[test]
    fn a_stolen_ca_can_impersonate_nothing_else() {
        let authority =
            CertificateAuthority::create(tempfile::tempdir().unwrap().path(), &["amazonaws.com".into()]).unwrap();
        assert!(matches!(authority.leaf("example.com"), Err(AuthorityError::Outside { .. })));
        assert!(matches!(authority.leaf("notamazonaws.com"), Err(AuthorityError::Outside { .. })));
        let (now, end) = (OffsetDateTime::now_utc(), OffsetDateTime::now_utc() + Duration::days(1));
        let forged = leaf_parameters("example.com", now, end)
            .unwrap()
            .signed_by(&authority.leaves.key, &authority.issuer)
            .unwrap();
        let forged = CertifiedKey::new(vec![forged.der().clone()], authority.leaves.signer.clone());
        let error = verify(&authority, &forged, "example.com").unwrap_err();
        assert!(error.to_string().contains("NameConstraint"), "{error}");
    }

    #[test]
    fn reopened_it_is_the_same_and_refuses_an_exposed_key() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let first = CertificateAuthority::create(dir, &["amazonaws.com".into()]).unwrap();
        let again = CertificateAuthority::open(dir).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        verify(&first, &again.leaf("s3.amazonaws.com").unwrap(), "s3.amazonaws.com").unwrap();
        fs::set_permissions(dir.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(CertificateAuthority::open(dir), Err(AuthorityError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let temporary = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [one, two] = temporary.each_ref().map(tempfile::TempDir::path);
        CertificateAuthority::create(one, &["amazonaws.com".into()]).unwrap();
        CertificateAuthority::create(two, &["amazonaws.com".into()]).unwrap();
        fs::copy(one.join("ca.crt"), two.join("ca.crt")).unwrap();
        assert!(matches!(CertificateAuthority::open(two), Err(AuthorityError::Broken { .. })));
    }
}
