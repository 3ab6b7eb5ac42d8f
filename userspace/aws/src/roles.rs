//! Roles that are assumed for agents, so that CloudTrail names the agent and its role bounds what it may do.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError as ProviderError, future},
};
use aws_sdk_sts::{
    config::SharedHttpClient,
    types::{PolicyDescriptorType, Tag},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};

use crate::CredentialSource;

/// One try at STS; three of them fit into the patience for all.
const ATTEMPT: Duration = Duration::from_secs(3);

/// What STS is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    /// `arn:aws:iam::123456789012:role/agents`.
    pub arn: String,
    /// What CloudTrail shows behind the role's name.
    pub session_name: String,
    /// Shown in CloudTrail for this session and all that are chained from it.
    pub source_identity: Option<String>,
    /// What the role's trust policy asks for.
    pub external_id: Option<String>,
    /// Session tags, in the order of their names.
    pub tags: Vec<(String, String)>,
    /// A session policy: the session may do what both it and the role permit.
    pub policy: Option<String>,
    /// Managed policies to the same end.
    pub policy_arns: Vec<String>,
    /// How long the credentials last, in seconds; STS's default, an hour, if `None`.
    pub duration_seconds: Option<i32>,
}

/// How STS is reached.
#[derive(Clone, Debug)]
pub struct Sts {
    /// The region whose STS is asked.
    pub region: String,
    /// Verifies by the right roots; see [`https_client`].
    pub http: SharedHttpClient,
    /// Another address than the region's own.
    pub endpoint: Option<String>,
}

/// A client that trusts these certificates (PEM) and no others.
pub fn https_client(roots: impl IntoIterator<Item = Vec<u8>>) -> Result<SharedHttpClient, String> {
    let mut store = TrustStore::empty();
    for root in roots {
        store.add_pem_certificate(root);
    }
    let context = TlsContext::builder().with_trust_store(store).build().map_err(|error| error.to_string())?;
    Ok(Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context).build_https())
}

impl CredentialSource {
    /// The credentials of a role, assumed by `base`'s.
    pub fn of_role(role: Role, sts: Sts, base: Self) -> Self {
        let account = role.arn.split(':').nth(4).filter(|account| !account.is_empty()).map(str::to_owned);
        let arn = role.arn.clone();
        let provider = SharedCredentialsProvider::new(Assumed { role, sts, base });
        Self::of(provider, Some(&arn), account.as_deref())
    }
}

/// Assumes a role each time that it is asked.
#[derive(Debug)]
struct Assumed {
    role: Role,
    sts: Sts,
    base: CredentialSource,
}

impl ProvideCredentials for Assumed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.assume())
    }
}

impl Assumed {
    async fn assume(&self) -> Result<Credentials, ProviderError> {
        let base = self.base.get().await.map_err(ProviderError::provider_error)?;
        let token = base.session_token().map(str::to_owned);
        let own = Credentials::new(
            base.access_key_id(),
            base.secret_access_key(),
            token,
            base.expiry(),
            "the daemon's own credentials",
        );
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build();
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.sts.region.clone()))
            .http_client(self.sts.http.clone())
            .retry_config(RetryConfig::standard())
            .timeout_config(timeouts)
            .credentials_provider(own);
        config.set_endpoint_url(self.sts.endpoint.clone());
        let role = &self.role;
        let mut tags = Vec::with_capacity(role.tags.len());
        for (key, value) in &role.tags {
            tags.push(Tag::builder().key(key).value(value).build().map_err(ProviderError::invalid_configuration)?);
        }
        let arns = role.policy_arns.iter().map(|arn| PolicyDescriptorType::builder().arn(arn).build());
        let answer = aws_sdk_sts::Client::from_conf(config.build())
            .assume_role()
            .role_arn(&role.arn)
            .role_session_name(&role.session_name)
            .set_source_identity(role.source_identity.clone())
            .set_external_id(role.external_id.clone())
            .set_tags((!tags.is_empty()).then_some(tags))
            .set_policy(role.policy.clone())
            .set_policy_arns((!role.policy_arns.is_empty()).then(|| arns.collect()))
            .set_duration_seconds(role.duration_seconds)
            .send()
            .await
            // The text alone: `Debug` of the error would carry the request.
            .map_err(|error| ProviderError::provider_error(said(&error)))?;
        let given = answer.credentials.ok_or_else(|| ProviderError::provider_error("STS gave no credentials"))?;
        let expiry = SystemTime::try_from(given.expiration).map_err(ProviderError::provider_error)?;
        if expiry <= SystemTime::now() {
            return Err(ProviderError::provider_error("STS gave credentials that have ended: check this host's clock"));
        }
        Ok(Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            Some(expiry),
            "AssumeRole",
        ))
    }
}

/// What STS said, by its code and message, or why it said nothing.
fn said(error: &aws_sdk_sts::error::SdkError<aws_sdk_sts::operation::assume_role::AssumeRoleError>) -> String {
    use aws_sdk_sts::error::ProvideErrorMetadata as _;
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => chaperone_model::with_causes(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// An STS on loopback, which keeps what it was asked and answers as it is told.
    struct FakeSts {
        asked: Arc<Mutex<Vec<String>>>,
        answer: Arc<Mutex<(u16, String)>>,
        sts: Sts,
    }

    async fn fake() -> FakeSts {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let (asked, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Mutex::new((200, given("ASIA1", 3600)))));
        let (keeps, says) = (asked.clone(), answer.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (keeps, says) = (keeps.clone(), says.clone());
                tokio::spawn(async move {
                    let mut text = String::new();
                    loop {
                        let mut piece = [0; 4096];
                        let count = stream.read(&mut piece).await.unwrap();
                        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
                        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                        let length = head
                            .lines()
                            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                        if body.len() >= length.unwrap_or(0) {
                            break;
                        }
                    }
                    keeps.lock().push(text);
                    let (status, body) = says.lock().clone();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: text/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
            }
        });
        let sts = Sts { region: "eu-west-1".into(), http: https_client(None).unwrap(), endpoint: Some(endpoint) };
        FakeSts { asked, answer, sts }
    }

    // Shaped as the example in STS's API reference.
    fn given(id: &str, seconds: i64) -> String {
        let ends = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + time::Duration::seconds(seconds);
        let ends = ends.format(&time::format_description::well_known::Rfc3339).unwrap();
        format!(
            r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser>
<Arn>arn:aws:sts::210987654321:assumed-role/agents/coder</Arn><AssumedRoleId>ARO123EXAMPLE123:coder</AssumedRoleId>
</AssumedRoleUser><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>real/secret</SecretAccessKey>
<SessionToken>real+token</SessionToken><Expiration>{ends}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"#
        )
    }

    const DENIED: &str = r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>User: x is not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"#;

    fn source(sts: &Sts) -> CredentialSource {
        let own = Credentials::new("AKIAOWN", "own secret", None, None, "test");
        let own = CredentialSource::new(SharedCredentialsProvider::new(own), Some("123456789012"));
        let role = Role {
            arn: "arn:aws:iam::210987654321:role/agents".into(),
            session_name: "coder".into(),
            source_identity: Some("coder".into()),
            external_id: Some("ext:1".into()),
            tags: vec![("session".into(), "s-1".into()), ("team".into(), "a b".into())],
            policy: Some(r#"{"Version":"2012-10-17"}"#.into()),
            policy_arns: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".into()],
            duration_seconds: Some(900),
        };
        CredentialSource::of_role(role, sts.clone(), own)
    }

    #[tokio::test]
    async fn a_role_is_asked_for_in_full_and_once() {
        let fake = fake().await;
        let source = source(&fake.sts);
        assert_eq!(source.account().as_deref(), Some("210987654321"), "known before anybody asks");
        let all = futures_util::future::join_all((0..10).map(|_| source.get())).await;
        for credentials in all {
            let credentials = credentials.unwrap();
            assert_eq!((credentials.access_key_id(), credentials.session_token()), ("ASIA1", Some("real+token")));
            assert_eq!((credentials.secret_access_key(), credentials.account()), ("real/secret", Some("210987654321")));
            assert!(credentials.expiry().unwrap() > SystemTime::now());
        }
        let asked = fake.asked.lock().clone();
        assert_eq!(asked.len(), 1);
        for part in [
            "Credential=AKIAOWN/",
            "/eu-west-1/sts/aws4_request",
            "Action=AssumeRole&",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A210987654321%3Arole%2Fagents",
            "RoleSessionName=coder",
            "SourceIdentity=coder",
            "ExternalId=ext%3A1",
            "Tags.member.1.Key=session&Tags.member.1.Value=s-1",
            "Tags.member.2.Value=a%20b",
            "Policy=%7B%22Version%22",
            "PolicyArns.member.1.arn=arn%3Aaws%3Aiam%3A%3Aaws%3Apolicy%2FReadOnlyAccess",
            "DurationSeconds=900",
        ] {
            assert!(asked[0].contains(part), "{part}: {}", asked[0]);
        }
    }

    #[tokio::test]
    async fn what_sts_says_is_told_and_nothing_secret_with_it() {
        let fake = fake().await;
        *fake.answer.lock() = (403, DENIED.to_owned());
        let error = source(&fake.sts).get().await.unwrap_err().to_string();
        assert!(
            error.contains("role/agents: ") && error.contains("not authorized to perform: sts:AssumeRole"),
            "{error}"
        );
        *fake.answer.lock() = (200, given("ASIA1", 3600).replace("Expiration>", "Expiry>"));
        let error = source(&fake.sts).get().await.unwrap_err().to_string();
        assert!(!error.contains("secret") && !error.contains("real+token"), "{error}");
    }

    #[tokio::test]
    async fn while_sts_is_away_what_is_valid_is_used() {
        let fake = fake().await;
        // So short that it is to be renewed at once: half of what is left, ahead.
        *fake.answer.lock() = (200, given("ASIA1", 2));
        let source = source(&fake.sts);
        assert_eq!(source.get().await.unwrap().access_key_id(), "ASIA1");
        *fake.answer.lock() = (403, DENIED.to_owned());
        let ends = source.get().await.unwrap().expiry().unwrap();
        while let Ok(credentials) = source.get().await {
            assert!(credentials.expiry() == Some(ends) && SystemTime::now() < ends + Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
        assert!(SystemTime::now() >= ends, "they were used to their end, and not beyond");
        *fake.answer.lock() = (200, given("ASIA2", 3600));
        assert_eq!(source.get().await.unwrap().access_key_id(), "ASIA2");
    }
}
