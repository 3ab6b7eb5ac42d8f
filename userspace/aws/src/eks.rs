//! What opens the Kubernetes API of an EKS cluster: the token of `aws eks get-token`, and of aws-iam-authenticator, which is
//! a presigned URL of STS's `GetCallerIdentity` that the cluster asks itself to learn who it is. The cluster's name is signed
//! and not in it: the cluster knows its own, and so takes no token that was made for another.
//!
//! <https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/master/README.md>, and `pkg/token/token.go` there for what
//! is taken; awscli's `customizations/eks/get_token.py`.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{HeaderValue, Method, Request, Uri, header::AUTHORIZATION, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    AwsCredentials, Catalog, EMPTY_SHA256, Endpoint, HostKind, HostMatch, MAX_CLOCK_SKEW, Placeholder, Presigned,
    RequestAuth, SignError, Signer, VerifyError, canonical::write_encoded, sign::format_date,
};

/// What every token begins with.
const PREFIX: &str = "k8s-aws-v1.";
/// Longer than any with a session token. (Its verifier takes no more than 4 KiB of query.)
const MAX_FIELD: usize = 16 << 10;
const CLUSTER_FIELD: &str = "x-k8s-aws-id";
const SIGNED_FIELDS: &str = "host;x-k8s-aws-id";
/// The members that the cluster takes in a query, in lower case; it refuses a URL with others.
const MEMBERS: [&str; 10] = [
    "action",
    "version",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
    "x-amz-user-agent",
];
/// A certificate authority is one certificate; some have a few.
const MAX_AUTHORITY: usize = 64 << 10;

/// A token for a cluster. All of it is the agent's claim.
pub struct EksToken {
    /// STS's host.
    host: String,
    target: Uri,
    access_key_id: String,
    session_token: Zeroizing<String>,
    region: String,
}

impl fmt::Debug for EksToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EksToken").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl EksToken {
    /// The one of a request, if it is for a cluster and has one that can be read in one way.
    pub fn of(parts: &Parts, host: &HostMatch) -> Option<Self> {
        if host.kind != HostKind::Endpoint(Endpoint::EksCluster) {
            return None;
        }
        let mut fields = parts.headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let (scheme, rest) = field.to_str().ok().filter(|text| text.len() <= MAX_FIELD)?.split_once(' ')?;
        let encoded = rest.trim().strip_prefix(PREFIX).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
        let url = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?);
        let url: Uri = std::str::from_utf8(&url).ok()?.parse().ok()?;
        let sts = url.authority()?.as_str();
        let found = Catalog::global().host(sts)?;
        let is_sts = found.kind == HostKind::Service && found.services().eq(["sts"]);
        if url.scheme_str() != Some("https") || url.path() != "/" || !is_sts || found.partition != host.partition {
            return None;
        }
        let mut members = Vec::new();
        for pair in url.query()?.split('&') {
            let (name, value) = pair.split_once('=')?;
            let name = percent_decode_str(name).decode_utf8().ok()?.to_ascii_lowercase();
            if !MEMBERS.contains(&name.as_str()) || members.iter().any(|(other, _)| *other == name) {
                return None;
            }
            members.push((name, percent_decode_str(value).decode_utf8().ok()?.into_owned()));
        }
        let member = |name: &str| members.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let asks = member("action") == Some("GetCallerIdentity") && member("version") == Some("2011-06-15");
        let mut scope = member("x-amz-credential")?.split('/');
        let (id, _, region, service) = (scope.next()?, scope.next()?, scope.next()?, scope.next()?);
        if !asks || member("x-amz-signedheaders") != Some(SIGNED_FIELDS) || service != "sts" {
            return None;
        }
        // The region is the host's, or where a host has none one of its partition.
        let (known, partition) = Catalog::global().region(region)?;
        if partition != host.partition || found.region.as_ref().is_some_and(|own| *own != known) {
            return None;
        }
        Some(Self {
            host: sts.to_owned(),
            access_key_id: id.to_owned(),
            session_token: Zeroizing::new(member("x-amz-security-token").unwrap_or_default().to_owned()),
            region: region.to_owned(),
            target: url.path_and_query()?.as_str().parse().ok()?,
        })
    }

    /// Whose it is.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Whether who made it has this placeholder, by what isn't secret alone: the signature can be checked once the cluster is
    /// known.
    pub fn check_bearer(&self, placeholder: &Placeholder) -> Result<(), VerifyError> {
        if self.access_key_id != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: self.access_key_id.chars().take(128).collect() });
        }
        let same = verify_slices_are_equal(self.session_token.as_bytes(), placeholder.session_token().as_bytes());
        same.map_err(|_| VerifyError::Token)
    }

    /// Whether this placeholder made it, for this cluster and not longer ago than a cluster takes them: 15 minutes, whatever
    /// the URL itself says.
    pub fn verify(
        &self,
        signer: &Signer,
        placeholder: &Placeholder,
        cluster: &str,
        now: OffsetDateTime,
    ) -> Result<(), VerifyError> {
        const UNREADABLE: VerifyError = VerifyError::Presigned("it can't be read");
        self.check_bearer(placeholder)?;
        let request = Request::builder().method(Method::GET).uri(self.target.clone()).header("host", &self.host);
        let request = request.header(CLUSTER_FIELD, cluster).body(()).map_err(|_| UNREADABLE)?;
        let mut parts = request.into_parts().0;
        let found = Catalog::global().host(&self.host).ok_or(UNREADABLE)?;
        let RequestAuth::Presigned { .. } = RequestAuth::of(&parts) else { return Err(UNREADABLE) };
        let presigned = Presigned::take(&mut parts, &found, &self.region, now)?.lasting(MAX_CLOCK_SKEW);
        presigned.verify(signer, Some(&EMPTY_SHA256), placeholder, now)
    }

    /// The field that these credentials make in its place. Of one minute all are the same, so that the cluster needn't ask
    /// STS for each request.
    pub fn field(
        &self,
        signer: &Signer,
        credentials: &AwsCredentials,
        cluster: &str,
        now: OffsetDateTime,
    ) -> Result<HeaderValue, SignError> {
        let stamp = format_date(now - time::Duration::seconds(now.second().into()));
        let (id, day) = (credentials.access_key_id(), &stamp[..8]);
        let mut query = Zeroizing::new(String::with_capacity(2048));
        let mut add = |name: &str, value: &str| {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            write_encoded(&mut query, value.as_bytes());
        };
        // In the order in which they are signed.
        add("Action", "GetCallerIdentity");
        add("Version", "2011-06-15");
        add("X-Amz-Algorithm", "AWS4-HMAC-SHA256");
        add("X-Amz-Credential", &format!("{id}/{day}/{}/sts/aws4_request", self.region));
        add("X-Amz-Date", &stamp);
        add("X-Amz-Expires", "60");
        if let Some(token) = credentials.session_token() {
            add("X-Amz-Security-Token", token);
        }
        add("X-Amz-SignedHeaders", SIGNED_FIELDS);
        let canonical = Zeroizing::new(format!(
            "GET\n/\n{}\nhost:{}\n{CLUSTER_FIELD}:{cluster}\n\n{SIGNED_FIELDS}\n{}",
            *query,
            self.host,
            hex::encode(EMPTY_SHA256)
        ));
        let scope = (day, self.region.as_str(), "sts");
        let signature = signer.signature(id, credentials.secret_access_key(), canonical.as_bytes(), &stamp, scope);
        let url = format!("https://{}/?{}&X-Amz-Signature={}", self.host, *query, hex::encode(signature));
        let url = Zeroizing::new(url);
        let field = Zeroizing::new(format!("Bearer {PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(url.as_bytes())));
        let mut field = HeaderValue::from_str(&field).map_err(|_| SignError::Credentials)?;
        field.set_sensitive(true);
        Ok(field)
    }
}

/// What EKS says of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedCluster {
    /// Its name.
    pub name: String,
    /// Its API server's name, in lower case.
    pub host: String,
    /// What signed that server's certificate, in PEM.
    pub authority: String,
}

impl DescribedCluster {
    /// By the answer to `DescribeCluster`. `None`: it has no endpoint yet, or none that is a cluster's of EKS's.
    pub fn of(answer: &[u8]) -> Option<Self> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let cluster = answer.get("cluster")?;
        let endpoint: Uri = cluster.get("endpoint")?.as_str()?.parse().ok()?;
        let host = endpoint.host()?.to_ascii_lowercase();
        let is_its = endpoint.scheme_str() == Some("https") && matches!(endpoint.port_u16(), None | Some(443));
        let found = Catalog::global().host(&host)?;
        if !is_its || found.kind != HostKind::Endpoint(Endpoint::EksCluster) {
            return None;
        }
        let authority = BASE64_STANDARD.decode(data_of(cluster)?).ok()?;
        let authority = String::from_utf8(authority).ok().filter(|pem| pem.len() <= MAX_AUTHORITY)?;
        Some(Self { name: cluster.get("name")?.as_str()?.to_owned(), host, authority })
    }
}

fn data_of(cluster: &Value) -> Option<&str> {
    cluster.get("certificateAuthority")?.get("data")?.as_str()
}

/// An answer with a cluster in it, whose certificate authority clients are to trust at its API server.
#[derive(Debug)]
pub struct ClusterAnswer;

impl ClusterAnswer {
    /// Whether an operation of EKS's is answered with one.
    pub fn is_of(service: &str, operation: &str) -> bool {
        let all = ["CreateCluster", "DeleteCluster", "DeregisterCluster", "DescribeCluster", "RegisterCluster"];
        service == "eks" && all.contains(&operation)
    }

    /// The answer with another authority beside the cluster's own, in PEM: machines that join the cluster are configured by
    /// the same answer, and meet it without us. `None` where nothing is to be changed.
    pub fn with_authority(answer: &[u8], other: &str) -> Option<Vec<u8>> {
        let mut answer: Value = serde_json::from_slice(answer).ok()?;
        let cluster = answer.get_mut("cluster")?;
        let own = BASE64_STANDARD.decode(data_of(cluster)?).ok()?;
        let own = String::from_utf8(own).ok()?;
        if own.contains(other.trim()) {
            return None;
        }
        let both = format!("{}\n{}\n", own.trim_end(), other.trim());
        *cluster.get_mut("certificateAuthority")?.get_mut("data")? = BASE64_STANDARD.encode(both).into();
        serde_json::to_vec(&answer).ok()
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use time::{Duration, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);
    const HOST: &str = "0123456789ABCDEF0123456789ABCDEF.gr7.eu-west-1.eks.amazonaws.com";
    /// By awscli 1.46's `TokenGenerator`, with its clock at 12:00, for the cluster `prod`: `tests/data/eks_token.py`.
    const TOKEN: &str = include_str!("../tests/data/eks_token.txt");

    fn own() -> Placeholder {
        Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "secret", "chaperone/x/token")
    }

    fn request(host: &str, field: &str) -> Option<EksToken> {
        let parts = Request::get("/api").header("authorization", field).body(()).unwrap().into_parts().0;
        EksToken::of(&parts, &Catalog::global().host(host).unwrap())
    }

    fn token(url: &str) -> Option<EksToken> {
        request(HOST, &format!("Bearer {PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(url)))
    }

    fn url() -> String {
        let encoded = TOKEN.trim().strip_prefix(PREFIX).unwrap();
        String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn what_the_cli_makes_is_believed_for_its_cluster_and_made_anew() {
        let signer = Signer::new();
        let found = request(HOST, &format!("Bearer {}", TOKEN.trim())).unwrap();
        assert_eq!(found.access_key_id(), "ASIAQWERTYUIOPASDFGH");
        for minutes in [0, 2, 14] {
            assert_eq!(found.verify(&signer, &own(), "prod", NOW + Duration::minutes(minutes)), Ok(()));
        }
        assert_eq!(found.verify(&signer, &own(), "other", NOW), Err(VerifyError::Mismatch));
        let old = found.verify(&signer, &own(), "prod", NOW + Duration::minutes(16));
        assert!(matches!(old, Err(VerifyError::Date(_))), "{old:?}");
        let other = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "secret", "chaperone/y/token");
        assert_eq!(found.verify(&signer, &other, "prod", NOW), Err(VerifyError::Token));
        let guessed = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "guessed", "chaperone/x/token");
        assert_eq!(found.verify(&signer, &guessed, "prod", NOW), Err(VerifyError::Mismatch));
        let foreign = found.verify(&signer, &Placeholder::fixed("ASIAOTHER", "secret", "t"), "prod", NOW);
        assert!(matches!(foreign, Err(VerifyError::ForeignKey { .. })), "{foreign:?}");

        for session in [Some("t/+=".to_owned()), None] {
            let real = AwsCredentials::new(Credentials::new("AKIAREAL", "real", session.clone(), None, "test"));
            let at = NOW + Duration::seconds(59);
            let field = found.field(&signer, &real, "prod", at).unwrap();
            assert_eq!(found.field(&signer, &real, "prod", NOW).unwrap(), field, "of one minute all are the same");
            assert!(field.is_sensitive());
            let again = request(HOST, field.to_str().unwrap()).unwrap();
            let Some(session) = session else { continue };
            let real = Placeholder::fixed("AKIAREAL", "real", &session);
            assert_eq!(again.verify(&signer, &real, "prod", at), Ok(()));
            assert_eq!(again.verify(&signer, &real, "other", at), Err(VerifyError::Mismatch));
        }
    }

    #[test]
    fn what_a_cluster_would_not_take_is_no_token() {
        let good = url();
        assert!(token(&good).is_some());
        for bad in [
            good.replace("https://", "http://"),
            good.replace("sts.eu-west-1.amazonaws.com", "sts.evil.example"),
            good.replace("sts.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com"),
            good.replace("sts.eu-west-1.amazonaws.com", "sts.cn-north-1.amazonaws.com.cn"),
            good.replace("sts.eu-west-1.amazonaws.com", "sts.us-east-1.amazonaws.com"),
            good.replace("sts.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com:8443"),
            good.replace("sts.eu-west-1.amazonaws.com", "u@sts.eu-west-1.amazonaws.com"),
            good.replace("amazonaws.com/?", "amazonaws.com/x?"),
            good.replace("GetCallerIdentity", "GetSessionToken"),
            good.replace("host%3Bx-k8s-aws-id", "host"),
            good.replace("%2Fsts%2F", "%2Fs3%2F"),
            format!("{good}&Action=GetCallerIdentity"),
            format!("{good}&action=AssumeRole"),
            format!("{good}&x=y"),
            good.split('?').next().unwrap().to_owned(),
            "\u{ff}".to_owned(),
        ] {
            assert!(token(&bad).is_none(), "{bad}");
        }
        let good = format!("Bearer {}", TOKEN.trim());
        assert!(request("eks.eu-west-1.amazonaws.com", &good).is_none());
        assert!(request("my-lb-1.eu-west-1.elb.amazonaws.com", &good).is_none());
        let padded = format!("{good}==");
        assert!(request(HOST, &padded).is_some(), "some write the padding");
        for bad in ["", "Bearer", "Bearer x", "Bearer k8s-aws-v1.", "Bearer k8s-aws-v1.!!", "Basic k8s-aws-v1.eA"] {
            assert!(request(HOST, bad).is_none(), "{bad}");
        }
        assert!(request(HOST, &format!("{good}{}", "A".repeat(MAX_FIELD))).is_none());
    }

    #[test]
    fn an_answers_authority_is_both() {
        let data = BASE64_STANDARD.encode("-----BEGIN CERTIFICATE-----\nown\n-----END CERTIFICATE-----\n");
        let answer = serde_json::json!({"cluster": {
            "name": "prod", "endpoint": format!("https://{HOST}"), "createdAt": 1_748_779_200.123,
            "certificateAuthority": {"data": data},
        }});
        let answer = serde_json::to_vec(&answer).unwrap();
        let described = DescribedCluster::of(&answer).unwrap();
        assert_eq!((described.name.as_str(), described.host.as_str()), ("prod", &*HOST.to_ascii_lowercase()));
        let ours = "-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n";
        let changed = ClusterAnswer::with_authority(&answer, ours).unwrap();
        let both = DescribedCluster::of(&changed).unwrap().authority;
        assert!(both.contains("\nown\n") && both.ends_with(ours), "{both}");
        assert!(String::from_utf8(changed.clone()).unwrap().contains("1748779200.123"));
        assert_eq!(ClusterAnswer::with_authority(&changed, ours), None, "once");
        for other in ["{}", "[]", "x", "{\"cluster\":{\"name\":\"x\",\"status\":\"CREATING\"}}"] {
            assert_eq!(ClusterAnswer::with_authority(other.as_bytes(), ours), None, "{other}");
            assert_eq!(DescribedCluster::of(other.as_bytes()), None, "{other}");
        }
        let elsewhere = String::from_utf8(answer).unwrap().replace(HOST, "evil.example");
        assert_eq!(DescribedCluster::of(elsewhere.as_bytes()), None);
    }
}
