//! Whether AWS answers at an address, by the certificates that are shown there.
//!
//! What is passed on isn't read, and a name in a ClientHello is the agent's to choose: an address of AWS's answers it, too,
//! with a certificate of its own, which the agent needn't mind. But AWS's servers show that certificate to whoever greets
//! them. So they are greeted first, in the agent's network, and as the agent would. A server that shows others another
//! face isn't AWS's, whatever else it is; and one that refuses a greeting refuses the agent's.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use chaperone_aws::Catalog;
use chaperone_model::SessionId;
use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::connection::tunnel::{Tunnel, Way};

/// For how long it holds what was shown.
const HOLDS: Duration = Duration::from_mins(5);
/// How many answers are remembered.
const MAX_ANSWERS: usize = 4096;
/// How long an address has to show anything. AWS's own are there at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// A name that every server of AWS's takes for one of its own trade, and answers with its certificate.
const AN_API: &str = "sts.us-east-1.amazonaws.com";
/// AWS's networks in front of other people's sites: what they answer without a name goes by a field that nobody here reads.
const FRONTS: [&str; 2] = ["cloudfront.net", "awsglobalaccelerator.com"];

/// Which greetings are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Greetings {
    /// The agent's alone: the host's resolver has the address for this name.
    Own,
    /// And one of AWS's, since nothing but the agent says what is there.
    All,
}

/// Who is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// AWS: a name that the server there has a certificate for.
    Aws(String),
    /// Somebody else, or a server without TLS, or none.
    Others,
    /// It can't be told: nothing came in time, which an agent that floods its network can bring about.
    Silent,
}

type Question = (Option<SessionId>, Option<String>, SocketAddr, Greetings);

/// What addresses showed lately.
#[derive(Debug, Default)]
pub(crate) struct Presented {
    known: Mutex<HashMap<Question, (Instant, There)>>,
}

impl Presented {
    /// Whether AWS is there.
    ///
    /// `session`: whose network it is in, if it isn't the host's.
    pub(super) async fn aws_at(
        &self,
        way: &Way,
        session: Option<SessionId>,
        name: Option<&str>,
        address: SocketAddr,
        greetings: Greetings,
    ) -> There {
        let question = (session, name.map(str::to_owned), address, greetings);
        if let Some((at, found)) = self.known.lock().get(&question)
            && at.elapsed() < HOLDS
        {
            return found.clone();
        }
        // By a proxy, it is met by that name.
        let by = name.filter(|_| greetings == Greetings::Own);
        let own = shown(way, by, address, name);
        let other = async {
            match greetings {
                Greetings::Own => Some(Vec::new()),
                Greetings::All => shown(way, by, address, Some(AN_API)).await,
            }
        };
        let (own, other) = tokio::join!(own, other);
        let is_front = |shown: &str| FRONTS.iter().any(|front| shown.strip_suffix(front).is_some());
        let is_silent = own.is_none() || other.is_none();
        let mut all = own.into_iter().chain(other).flatten();
        let found = match all.find(|shown| is_aws(shown) || (name.is_none() && is_front(shown))) {
            Some(aws) => There::Aws(aws),
            None if is_silent => return There::Silent,
            None => There::Others,
        };
        let mut known = self.known.lock();
        if known.len() >= MAX_ANSWERS {
            known.retain(|_, (at, _)| at.elapsed() < HOLDS);
        }
        // Names are the agents' to choose: when there are too many, it is asked again.
        if known.len() < MAX_ANSWERS {
            known.insert(question, (Instant::now(), found.clone()));
        }
        found
    }
}

/// Whether a name in a certificate is one of AWS's APIs.
fn is_aws(shown: &str) -> bool {
    let name = shown.strip_prefix("*.").map_or_else(|| shown.to_owned(), |domain| format!("any.{domain}"));
    Catalog::global().host(&name).is_some()
}

/// The names in the certificate that a server shows to this greeting; none, if it shows none. `None`: it is silent.
async fn shown(way: &Way, by: Option<&str>, address: SocketAddr, greeting: Option<&str>) -> Option<Vec<String>> {
    let asked = async {
        let tunnel = way.dial(by, address).await?;
        certificate(tunnel, address, greeting).await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(certificate)) => Some(names(&certificate)),
        Ok(Err(error)) => {
            tracing::debug!(%error, %address, "no certificate was shown");
            (error.kind() != io::ErrorKind::TimedOut).then(Vec::new)
        }
        Err(_) => None,
    }
}

/// A server's certificate. The handshake ends there: nothing is sent to it.
async fn certificate(
    tunnel: Tunnel,
    address: SocketAddr,
    greeting: Option<&str>,
) -> io::Result<CertificateDer<'static>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = Arc::new(Seen { provider: provider.clone(), certificate: OnceLock::new() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("BUG: the provider supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    config.enable_sni = greeting.is_some();
    let name = match greeting {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
        None => ServerName::IpAddress(address.ip().into()),
    };
    let ended = TlsConnector::from(Arc::new(config)).connect(name, tunnel).await;
    let shown = seen.certificate.get().cloned();
    shown.ok_or_else(|| ended.err().unwrap_or_else(|| io::Error::other("no certificate")))
}

/// Looks at the certificate, and accepts none.
#[derive(Debug)]
struct Seen {
    provider: Arc<CryptoProvider>,
    certificate: OnceLock<CertificateDer<'static>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let _ = self.certificate.set(end_entity.clone().into_owned());
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The DNS names that a certificate is for, in lower case; of one without, its subject's common name.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    let mut names: Vec<String> =
        alternative.iter().flat_map(|extension| extension.value.general_names.iter().filter_map(dns)).collect();
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.extend(common.map(str::to_ascii_lowercase));
    names
}

#[cfg(test)]
mod tests {
    use chaperone_authority::CertificateAuthority;
    use rustls::{
        ServerConfig,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// As front ends do: what they don't know, and who says nothing, is shown the first name.
    #[derive(Debug)]
    struct Front {
        authority: CertificateAuthority,
        names: &'static [&'static str],
        strict: bool,
    }

    impl ResolvesServerCert for Front {
        fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            let known = hello.server_name().filter(|name| self.names.contains(name));
            let name = if self.strict { known? } else { known.unwrap_or(self.names[0]) };
            self.authority.leaf(name).ok()
        }
    }

    async fn server(names: &'static [&'static str], strict: bool) -> SocketAddr {
        let folder = tempfile::tempdir().unwrap();
        let domains = ["amazonaws.com", "example.com", "cloudfront.net"].map(str::to_owned);
        let authority = CertificateAuthority::create(folder.path(), &domains).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Front { authority, names, strict }));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move { drop(acceptor.accept(stream).await) });
            }
        });
        address
    }

    async fn there(address: SocketAddr, name: Option<&str>, greetings: Greetings) -> There {
        Presented::default().aws_at(&Way::home(), None, name, address, greetings).await
    }

    async fn ask(address: SocketAddr, name: Option<&str>, greetings: Greetings) -> Option<String> {
        match there(address, name, greetings).await {
            There::Aws(name) => Some(name),
            There::Others => None,
            There::Silent => panic!("{address} is silent"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_could_be_aws() {
        // It takes connections, and no more: the clock goes on by itself when nothing else can happen.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(accepted) = listener.accept().await {
                held.push(accepted);
            }
        });
        assert_eq!(there(address, Some("www.example.com"), Greetings::Own).await, There::Silent);
        assert_eq!(there(address, None, Greetings::All).await, There::Silent);
    }

    #[tokio::test]
    async fn aws_is_known_by_what_it_shows_to_any_greeting() {
        let s3 = server(&["s3.eu-west-1.amazonaws.com"], false).await;
        for name in [None, Some("innocent.example.com")] {
            for greetings in [Greetings::Own, Greetings::All] {
                assert_eq!(ask(s3, name, greetings).await.as_deref(), Some("s3.eu-west-1.amazonaws.com"), "{name:?}");
            }
        }
        // What the agent would be shown is all that counts where the name is the host's own; else AWS's is asked for, too.
        let both = server(&["www.example.com", "sts.us-east-1.amazonaws.com"], true).await;
        assert_eq!(ask(both, Some("www.example.com"), Greetings::Own).await, None);
        assert!(ask(both, Some("www.example.com"), Greetings::All).await.is_some());
        let front = server(&["d1.cloudfront.net"], false).await;
        assert!(ask(front, None, Greetings::All).await.is_some());
        assert!(ask(front, Some("d1.cloudfront.net"), Greetings::All).await.is_none());
    }

    #[tokio::test]
    async fn others_are_not() {
        let other = server(&["www.example.com"], false).await;
        for name in [None, Some("www.example.com"), Some("other.example.com")] {
            assert_eq!(ask(other, name, Greetings::All).await, None);
        }
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(ask(nobody, None, Greetings::All).await, None);
        // Not TLS at all: it closes at once.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        assert_eq!(ask(plain, None, Greetings::All).await, None);
    }

    #[test]
    fn names_with_a_star_are_looked_up_below_it() {
        for aws in ["*.s3.amazonaws.com", "sts.amazonaws.com", "*.api.aws", "*.execute-api.eu-west-1.amazonaws.com"] {
            assert!(is_aws(aws), "{aws}");
        }
        for other in ["*.example.com", "www.amazon.com", "*.com", "console.aws.amazon.com", "d1.cloudfront.net"] {
            assert!(!is_aws(other), "{other}");
        }
    }
}
