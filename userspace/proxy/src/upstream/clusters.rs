//! EKS clusters by their API servers' names: what each is called, and what its certificate is verified by, which is an
//! authority of its own. Both are what EKS says, to the credentials that a token for the cluster is made by: a name of another
//! account's never gets one, though a cluster there may be called the same.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chaperone_aws::{AwsCredentials, Catalog, DescribedCluster, EMPTY_SHA256, HostMatch, Scope, Signer};
use futures_util::stream::{self, StreamExt as _};
use http::{Request, header};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::{
    body::request::Outgoing,
    upstream::pool::{OwnRoots, Target, Upstream},
};

/// A cluster keeps its name and authority while its API server has the same name.
const HOLDS: Duration = Duration::from_hours(1);
/// For how long EKS isn't asked again for a name that it didn't know, or when it couldn't be asked.
const RESTS: Duration = Duration::from_secs(10);
/// How many are remembered, one account's all together.
const MAX_KNOWN: usize = 1024;
/// An account has 100 clusters in a region, unless it asked for more.
const MAX_CLUSTERS: usize = 500;
/// How many are asked for at once.
const AT_ONCE: usize = 8;
/// What EKS answers of one is 3 KiB.
const MAX_ANSWER: usize = 1 << 20;
/// For all that is asked to find one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why it isn't known which cluster a name is.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(
        "asking EKS in {region} for {what}: {why}; to find out which cluster a name is takes eks:ListClusters and \
         eks:DescribeCluster, or that the agent describes the cluster itself (`aws eks update-kubeconfig`)"
    )]
    Ask { region: String, what: String, why: String },
    #[error("the certificate authority that EKS has for the cluster `{cluster}` can't be read: {why}")]
    Authority { cluster: String, why: String },
    #[error(
        "`{host}` is none of the {count} clusters in {region} that EKS shows to the credentials that sign for this agent"
    )]
    NotFound { host: String, count: usize, region: String },
    #[error("`{host}` doesn't say where its cluster's EKS is")]
    Place { host: String },
}

impl ClusterError {
    /// Whether it may be otherwise when it is asked again.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Ask { .. })
    }
}

/// A cluster, as far as is needed to go there.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: Arc<str>,
    pub(crate) roots: Arc<OwnRoots>,
}

/// Whose, and by which name.
type Key = (String, String);
/// When EKS was asked, and what came of it.
type Known = (Instant, Result<Arc<Cluster>, ClusterError>);
/// When an account's clusters in a region were all looked at, and how many there were. Held while that is done.
type Listed = Arc<tokio::sync::Mutex<Option<(Instant, Result<usize, ClusterError>)>>>;

/// What is known of clusters.
#[derive(Debug, Default)]
pub(crate) struct Clusters {
    known: Mutex<HashMap<Key, Known>>,
    /// By account and region: whatever names agents come with, EKS is asked for all of its clusters once in a while.
    listed: Mutex<HashMap<(String, String), Listed>>,
}

/// How EKS is asked.
pub(crate) struct Eks<'a> {
    pub(crate) upstream: &'a Upstream<Outgoing>,
    pub(crate) signer: &'a Signer,
    /// What signs, and whose they are.
    pub(crate) credentials: &'a AwsCredentials,
    pub(crate) account: Option<&'a str>,
    pub(crate) answer_timeout: Duration,
}

impl Clusters {
    /// The cluster at this name, as EKS has it for these credentials.
    pub(crate) async fn at(&self, host: &str, found: &HostMatch, eks: &Eks<'_>) -> Result<Arc<Cluster>, ClusterError> {
        let whose = eks.account.unwrap_or_else(|| eks.credentials.access_key_id());
        let key = (whose.to_owned(), host.to_owned());
        if let Some(known) = self.fresh(&key) {
            return known;
        }
        let looked = timeout(PATIENCE, self.look(whose, host, found, eks)).await.unwrap_or_else(|_| {
            let why = format!("it took longer than {} s", PATIENCE.as_secs());
            let region = found.region.as_deref().unwrap_or_default().to_owned();
            Err(ClusterError::Ask { region, what: "its clusters".to_owned(), why })
        });
        if let Err(error) = &looked {
            tracing::warn!(host, %error, "a cluster isn't known");
            self.keep(key, Err(error.clone()));
        }
        looked
    }

    /// What EKS said of one, to this account's credentials.
    pub(crate) fn learn(&self, account: &str, described: &DescribedCluster) -> Result<Arc<Cluster>, ClusterError> {
        let roots = OwnRoots::from_pem(&described.authority)
            .map_err(|why| ClusterError::Authority { cluster: described.name.clone(), why })?;
        let cluster = Arc::new(Cluster { name: described.name.as_str().into(), roots: Arc::new(roots) });
        self.keep((account.to_owned(), described.host.clone()), Ok(cluster.clone()));
        Ok(cluster)
    }

    fn fresh(&self, key: &Key) -> Option<Result<Arc<Cluster>, ClusterError>> {
        let known = self.known.lock();
        let (since, known) = known.get(key)?;
        (since.elapsed() < if known.is_ok() { HOLDS } else { RESTS }).then(|| known.clone())
    }

    fn keep(&self, key: Key, what: Result<Arc<Cluster>, ClusterError>) {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN && !known.contains_key(&key) {
            known.retain(|_, (since, what)| what.is_ok() && since.elapsed() < HOLDS);
            // Names are the agents' to choose, and what EKS said of one is not: it is asked again.
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
        }
        known.insert(key, (Instant::now(), what));
    }

    async fn look(
        &self,
        whose: &str,
        host: &str,
        found: &HostMatch,
        eks: &Eks<'_>,
    ) -> Result<Arc<Cluster>, ClusterError> {
        let place = || ClusterError::Place { host: host.to_owned() };
        let region = found.region.as_deref().ok_or_else(place)?;
        let api = api_of(host, region, found.partition).ok_or_else(place)?;
        let not_found = |count| ClusterError::NotFound { host: host.to_owned(), count, region: region.to_owned() };
        let listed = self.listed.lock().entry((whose.to_owned(), region.to_owned())).or_default().clone();
        let mut listed = listed.lock().await;
        // Whoever was here before has looked at all of them.
        if let Some(known) = self.fresh(&(whose.to_owned(), host.to_owned())) {
            return known;
        }
        if let Some((since, all)) = &*listed
            && since.elapsed() < RESTS
        {
            return Err(all.clone().map_or_else(|error| error, not_found));
        }
        let all = match self.look_at_all(whose, host, &api, region, eks).await {
            Ok((Some(cluster), _)) => return Ok(cluster),
            Ok((None, count)) => Ok(count),
            Err(error) => Err(error),
        };
        *listed = Some((Instant::now(), all.clone()));
        Err(all.map_or_else(|error| error, not_found))
    }

    /// The cluster at that name if there is one, and how many there are. What EKS says of the others is remembered, too.
    async fn look_at_all(
        &self,
        whose: &str,
        host: &str,
        api: &str,
        region: &str,
        eks: &Eks<'_>,
    ) -> Result<(Option<Arc<Cluster>>, usize), ClusterError> {
        let names = eks.list(api, region).await?;
        let count = names.len();
        let describe = |name: String| async move { eks.describe(api, region, &name).await };
        let mut answers = stream::iter(names.into_iter().map(describe)).buffer_unordered(AT_ONCE);
        let mut failed = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    let Some(described) = DescribedCluster::of(&answer) else { continue };
                    let learnt = self.learn(whose, &described);
                    if described.host == host {
                        tracing::info!(host, cluster = described.name, "EKS says which cluster it is");
                        return learnt.map(|cluster| (Some(cluster), count));
                    }
                }
                // A role may see some of them.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok((None, count)), Err)
    }
}

impl Eks<'_> {
    async fn list(&self, api: &str, region: &str) -> Result<Vec<String>, ClusterError> {
        let unreadable = || self.failed(region, "its clusters", "the answer can't be read".to_owned());
        let (mut names, mut next) = (Vec::new(), String::new());
        loop {
            let mut target = "/clusters?maxResults=100".to_owned();
            if !next.is_empty() {
                target.push_str("&nextToken=");
                target.extend(percent_encoding::utf8_percent_encode(&next, percent_encoding::NON_ALPHANUMERIC));
            }
            let answer =
                self.ask(api, region, &target).await.map_err(|why| self.failed(region, "its clusters", why))?;
            let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|_| unreadable())?;
            let page = answer.get("clusters").and_then(|it| it.as_array()).ok_or_else(unreadable)?;
            names.extend(page.iter().filter_map(|name| name.as_str().map(str::to_owned)));
            answer.get("nextToken").and_then(|it| it.as_str()).unwrap_or_default().clone_into(&mut next);
            if next.is_empty() || page.is_empty() || names.len() >= MAX_CLUSTERS {
                return Ok(names);
            }
        }
    }

    async fn describe(&self, api: &str, region: &str, name: &str) -> Result<Bytes, ClusterError> {
        let target = format!("/clusters/{}", percent_encoding::utf8_percent_encode(name, NAME));
        self.ask(api, region, &target).await.map_err(|why| self.failed(region, &format!("the cluster `{name}`"), why))
    }

    #[allow(clippy::unused_self)] // it is what was asked
    fn failed(&self, region: &str, what: &str, why: String) -> ClusterError {
        ClusterError::Ask { region: region.to_owned(), what: what.to_owned(), why }
    }

    /// A call of the daemon's own, by the session's credentials.
    async fn ask(&self, api: &str, region: &str, target: &str) -> Result<Bytes, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stub = format!(
            "AWS4-HMAC-SHA256 Credential={}/20000101/{region}/eks/aws4_request, SignedHeaders=host, Signature={}",
            self.credentials.access_key_id(),
            "0".repeat(64)
        );
        let request = Request::get(format!("https://{api}{target}"))
            .header(header::HOST, api)
            .header(header::AUTHORIZATION, stub)
            .body(Outgoing::Whole(None));
        let (mut parts, body) = request.map_err(|error| text(&error))?.into_parts();
        let scope = Scope { region: region.to_owned(), service: "eks".to_owned() };
        self.signer
            .sign(&mut parts, Some(&EMPTY_SHA256), self.credentials, &scope, self.upstream.clock.now())
            .map_err(|error| text(&error))?;
        let address = match tokio::net::lookup_host((api, 443)).await.map(|mut found| found.next()) {
            Ok(Some(address)) => address,
            // Behind a proxy there may be no resolver that knows it: the proxy has one, and nobody dials this.
            _ if self.upstream.proxy.is_some() => SocketAddr::from(([192, 0, 2, 1], 443)),
            Ok(None) => return Err(format!("{api} has no address")),
            Err(error) => return Err(format!("resolving {api}: {error}")),
        };
        let target = Target { name: api.into(), address, http2: None, plain: false, roots: None };
        let answer =
            self.upstream.send(&target, Request::from_parts(parts, body)).await.map_err(|error| text(&error))?;
        let status = answer.response.status();
        let body = timeout(self.answer_timeout, Limited::new(answer.response.into_body(), MAX_ANSWER).collect());
        let body = body.await.map_err(|_| "the answer broke off".to_owned())?.map_err(|error| text(&error))?.to_bytes();
        if let Some(lease) = answer.lease {
            self.upstream.put_back(lease);
        }
        if !status.is_success() {
            let said: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(format!("{status}: {said}"));
        }
        Ok(body)
    }
}

/// What stands in a cluster's name without being encoded.
const NAME: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// EKS's own API where this cluster is.
fn api_of(host: &str, region: &str, partition: &str) -> Option<String> {
    let suffix = match host.split_once(&format!(".{region}.eks.")) {
        Some((_, suffix)) => suffix,
        // Of the names with both kinds of addresses the suffix is another.
        None => match partition {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => return None,
        },
    };
    let api = format!("eks.{region}.{suffix}");
    Catalog::global().host(&api).is_some_and(|found| found.services().any(|name| name == "eks")).then_some(api)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = include_str!("../../tests/data/cluster-ca.pem");

    fn described(name: &str, host: &str) -> DescribedCluster {
        DescribedCluster { name: name.to_owned(), host: host.to_owned(), authority: AUTHORITY.to_owned() }
    }

    #[test]
    fn eks_is_asked_where_the_cluster_is() {
        for (host, region, partition, api) in [
            ("a.gr7.eu-west-1.eks.amazonaws.com", "eu-west-1", "aws", Some("eks.eu-west-1.amazonaws.com")),
            ("a.yl4.cn-north-1.eks.amazonaws.com.cn", "cn-north-1", "aws-cn", Some("eks.cn-north-1.amazonaws.com.cn")),
            ("a.eks-cluster.eu-west-1.api.aws", "eu-west-1", "aws", Some("eks.eu-west-1.amazonaws.com")),
            ("a.eks-cluster.us-iso-east-1.x", "us-iso-east-1", "aws-iso", None),
        ] {
            assert_eq!(api_of(host, region, partition).as_deref(), api, "{host}");
        }
    }

    #[test]
    fn what_one_account_is_told_is_not_anothers() {
        let clusters = Clusters::default();
        let host = "a.gr7.eu-west-1.eks.amazonaws.com";
        let known = clusters.learn("111111111111", &described("prod", host)).unwrap();
        let of = |account: &str| clusters.known.lock().get(&(account.to_owned(), host.to_owned())).is_some();
        assert!(of("111111111111") && !of("222222222222"));
        let again = clusters.learn("111111111111", &described("prod", host)).unwrap();
        assert_eq!(known.roots, again.roots, "so that its connections are kept");
        let broken = DescribedCluster { authority: "none".to_owned(), ..described("prod", host) };
        assert!(matches!(clusters.learn("111111111111", &broken), Err(ClusterError::Authority { .. })));
    }

    #[test]
    fn so_many_are_remembered() {
        let clusters = Clusters::default();
        let wrong = ClusterError::Place { host: String::new() };
        for n in 0..MAX_KNOWN * 3 {
            clusters.keep((String::new(), n.to_string()), Err(wrong.clone()));
        }
        assert!(clusters.known.lock().len() <= MAX_KNOWN);
    }
}
