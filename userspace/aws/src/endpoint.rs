//! Customers' own endpoints: names below AWS's suffixes that no model describes, and what a request to each needs.
//!
//! Where IAM has an action for it, it is that action. Where it has none, the request is refused and the reason says so:
//! what no action covers no policy can permit.

use std::borrow::Cow;

use chaperone_model::{AccessLevel, Action, Call, Protocol};
use http::{Method, header::CACHE_CONTROL, request::Parts};
use serde_json::Value;

use crate::{
    actions::Requirements,
    decode_error::DecodeError,
    head::{announces_body, header},
    request_auth::{RequestAuth, payload_shape, single},
    resources::Place,
    route::Query,
};

pub(crate) mod kubernetes;
pub(crate) mod models;
mod path;

pub(crate) use path::clear_path;
use path::readings;

/// An endpoint of a customer's, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `ID.gateway.bedrock-agentcore.REGION`: a gateway to tools.
    AgentCoreGateway {
        /// The gateway's id.
        gateway: String,
    },
    /// A customer's own application, of which nothing is AWS's API: what it is.
    Application(&'static str),
    /// `ID.appsync-api.REGION`. The id is not the API's own.
    AppSync,
    /// `git-codecommit.REGION`: git over HTTPS.
    CodeCommit,
    /// `ID.gr7.REGION.eks`, or `ID.eks-cluster.REGION`: the Kubernetes API of an EKS cluster.
    EksCluster,
    /// `ID.execute-api.REGION`: API Gateway.
    ExecuteApi {
        /// The API's id; `None` at a VPC endpoint's own name, where a header names it.
        api: Option<String>,
    },
    /// `SERVICE.HASH.vpc-lattice-svcs.REGION.on.aws`.
    Lattice {
        /// The service's id, `svc-…`.
        service: String,
    },
    /// `ID.lambda-url.REGION.on.aws`: a function's URL.
    LambdaUrl,
    /// `bedrock-mantle.REGION.api.aws`: models by the APIs of OpenAI and Anthropic.
    Mantle,
    /// Something that IAM has no action for: what it is.
    NoAction(&'static str),
    /// `search-NAME-HASH.REGION.es`, or `NAME-HASH.aos.REGION.on.aws`.
    OpenSearch {
        /// The domain's name.
        domain: String,
    },
    /// `ID.REGION.aoss`: a collection of OpenSearch Serverless.
    OpenSearchServerless {
        /// The collection's id; `None` for the dashboards of all.
        collection: Option<String>,
    },
    /// `DOMAIN-ACCOUNT.d.codeartifact.REGION`: package managers' way to CodeArtifact's repositories.
    Packages {
        /// The domain.
        domain: String,
        /// The account that owns it.
        account: String,
    },
    /// `aps-workspaces.REGION`: Managed Service for Prometheus.
    Prometheus,
    /// `ACCOUNT.dkr.ecr.REGION`: a container registry (the OCI distribution API).
    Registry {
        /// The registry's account; `None` at a VPC endpoint's own name.
        account: Option<String>,
    },
    /// `transcribestreaming.REGION`: speech as it is spoken. botocore speaks no bidirectional streams and leaves it out.
    TranscribeStreaming,
}

/// What a request to an endpoint needs: the service's name, then actions on one resource, group by group.
pub(crate) struct EndpointRequirements {
    pub service: &'static str,
    pub groups: Vec<(Vec<(&'static str, AccessLevel)>, String)>,
}

impl EndpointRequirements {
    pub fn one(service: &'static str, action: &'static str, level: AccessLevel, resource: String) -> Self {
        Self { service, groups: vec![(vec![(action, level)], resource)] }
    }

    /// The call that needs this.
    pub fn call(self, parts: &Parts, place: &Place<'_>, signing_name: Option<&str>) -> Result<Call, DecodeError> {
        let mut needs = Requirements::default();
        for (actions, resource) in self.groups {
            for (name, level) in actions {
                needs.action(name, level);
            }
            // Paths of applications are taken literally, and some of these end in a `*` of ours.
            needs.made_resource(resource)?;
            needs.close();
        }
        let needed = needs.finish();
        let operation = needed.actions.first().map_or("", |action: &Action| match &action.name {
            Cow::Borrowed(name) => name.split(':').nth(1).unwrap_or_default(),
            Cow::Owned(_) => "",
        });
        Ok(Call {
            partition: Cow::Borrowed(place.partition),
            region: place.region.clone(),
            account: place.account.map(|account| Cow::Owned(account.to_owned())),
            service: Cow::Borrowed(self.service),
            signing_name: Cow::Owned(signing_name.unwrap_or(self.service).to_owned()),
            operation: Cow::Borrowed(operation),
            candidates: Vec::new(),
            pairs: needed.pairs,
            unknown: needed.unknown,
            unread: Vec::new(),
            references: chaperone_model::References::default(),
            protocol: Protocol::RestJson,
            actions: needed.actions,
            resources: needed.resources,
            parameters: Value::Null,
            looked_up: None,
            payload: payload_shape(parts),
        })
    }
}

impl Endpoint {
    /// By a name's labels before the region, and those after it. `endpoint`: it is a VPC endpoint's own name.
    pub(crate) fn of(before: &[&str], after: &[&str], endpoint: bool) -> Option<Self> {
        let is_account = |label: &str| label.len() == 12 && label.bytes().all(|b| b.is_ascii_digit());
        Some(match (before, after) {
            ([id, "gateway", "bedrock-agentcore"], []) => Self::AgentCoreGateway { gateway: (*id).to_owned() },
            ([_, "appsync-api"], []) => Self::AppSync,
            ([_, "appsync-realtime-api"], []) => Self::NoAction("a WebSocket of AppSync"),
            (["git-codecommit" | "git-codecommit-fips"], []) => Self::CodeCommit,
            ([], ["execute-api"]) | (["execute-api"], []) if endpoint => Self::ExecuteApi { api: None },
            ([id, "execute-api" | "execute-api-fips"], []) => {
                // A private API's name may carry its VPC endpoint: `ID-vpce-0123`.
                let api = id.split_once("-vpce-").map_or(*id, |(api, _)| api);
                Self::ExecuteApi { api: Some(api.to_owned()) }
            }
            (["bedrock-mantle" | "bedrock-mantle-fips"], []) => Self::Mantle,
            ([name, _, "vpc-lattice-svcs"], []) => Self::Lattice { service: name[name.rfind("svc-")?..].to_owned() },
            ([_, "lambda-url"], []) => Self::LambdaUrl,
            ([name, "aos"], []) | ([name], ["es"]) => Self::OpenSearch { domain: domain(name)? },
            (["dashboards"], ["aoss" | "aoss-fips"]) => Self::OpenSearchServerless { collection: None },
            ([id], ["aoss" | "aoss-fips"]) => Self::OpenSearchServerless { collection: Some((*id).to_owned()) },
            (["aps-workspaces" | "aps-workspaces-fips"], []) => Self::Prometheus,
            ([account, "dkr", "ecr" | "ecr-fips"] | [account, "dkr-ecr" | "dkr-ecr-fips"], [])
                if is_account(account) =>
            {
                Self::Registry { account: Some((*account).to_owned()) }
            }
            ([name, "d", "codeartifact"], []) => {
                let (domain, account) = name.rsplit_once('-').filter(|(_, account)| is_account(account))?;
                Self::Packages { domain: domain.to_owned(), account: account.to_owned() }
            }
            (["dkr", "ecr"], []) if endpoint => Self::Registry { account: None },
            (["transcribestreaming" | "transcribestreaming-fips"] | ["cn" | "fips", "transcribestreaming"], []) => {
                Self::TranscribeStreaming
            }
            ([_, _], ["eks"]) | (["eks-cluster"] | ["eks-cluster", _] | [_, "eks-cluster"], []) => Self::EksCluster,
            (["oidc", "eks"] | ["oidc-eks"], []) => Self::NoAction("the OpenID Connect issuer of an EKS cluster"),
            ([_, "credentials", "iot"], []) => Self::NoAction("IoT's credentials provider, which takes certificates"),
            ([_, "deviceadvisor", "iot"], []) => Self::NoAction("a test endpoint of IoT Device Advisor"),
            ([.., "s3-website"], []) => Self::website(),
            ([.., last], []) if last.starts_with("s3-website-") => Self::website(),
            ([.., "elb"], []) | ([_], ["elb"]) => Self::Application("a customer's load balancer"),
            ([.., "compute"], []) | ([_], ["compute"]) => Self::Application("a customer's own machine"),
            ([.., _], ["rds" | "cache" | "redshift" | "redshift-serverless" | "docdb"]) => {
                Self::NoAction("a customer's database, which speaks no AWS API")
            }
            _ => return None,
        })
    }

    pub(crate) fn website() -> Self {
        Self::Application("a web site on S3, which takes no signatures and whose own rules choose the object")
    }

    /// Whether a request is to a customer's application, and none of AWS's API: at names that are nothing else, and where
    /// an application may take what has no signature, or a password or token of its own. AWS holds against IAM what must be,
    /// and refuses what isn't signed.
    pub fn is_application(&self, parts: &Parts) -> bool {
        let unsigned =
            || matches!(RequestAuth::of(parts), RequestAuth::Bearer | RequestAuth::None | RequestAuth::Other);
        match self {
            Self::Application(_) => true,
            Self::AgentCoreGateway { .. }
            | Self::AppSync
            | Self::ExecuteApi { .. }
            | Self::LambdaUrl
            | Self::Lattice { .. }
            | Self::OpenSearch { .. } => unsigned(),
            Self::CodeCommit
            | Self::EksCluster
            | Self::Mantle
            | Self::NoAction(_)
            | Self::OpenSearchServerless { .. }
            | Self::Packages { .. }
            | Self::Prometheus
            | Self::Registry { .. }
            | Self::TranscribeStreaming => false,
        }
    }

    /// The names by which requests to it are signed; none, if it takes no SigV4.
    pub(crate) fn signing_names(&self) -> &'static [&'static str] {
        match self {
            Self::AgentCoreGateway { .. } => &["bedrock-agentcore"],
            Self::AppSync => &["appsync"],
            Self::CodeCommit => &["codecommit"],
            Self::ExecuteApi { .. } => &["execute-api"],
            Self::LambdaUrl => &["lambda"],
            Self::Mantle => &["bedrock-mantle"],
            Self::Lattice { .. } => &["vpc-lattice-svcs"],
            Self::OpenSearch { .. } => &["es"],
            Self::OpenSearchServerless { .. } => &["aoss"],
            Self::Prometheus => &["aps"],
            Self::TranscribeStreaming => &["transcribe"],
            Self::Application(_)
            | Self::EksCluster
            | Self::NoAction(_)
            | Self::Packages { .. }
            | Self::Registry { .. } => &[],
        }
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::AgentCoreGateway { gateway } => format!("the AgentCore gateway `{gateway}`"),
            Self::AppSync => "an API of AppSync".into(),
            Self::CodeCommit => "CodeCommit's git".into(),
            Self::EksCluster => "the Kubernetes API of an EKS cluster".into(),
            Self::ExecuteApi { api: Some(api) } => format!("API Gateway's API `{api}`"),
            Self::ExecuteApi { api: None } => "API Gateway behind a VPC endpoint".into(),
            Self::LambdaUrl => "a Lambda function's URL".into(),
            Self::Lattice { service } => format!("the VPC Lattice service `{service}`"),
            Self::Mantle => "Bedrock's APIs of OpenAI's and Anthropic's kind".into(),
            Self::Application(what) | Self::NoAction(what) => (*what).into(),
            Self::OpenSearch { domain } => format!("the OpenSearch domain `{domain}`"),
            Self::OpenSearchServerless { .. } => "OpenSearch Serverless".into(),
            Self::Packages { domain, .. } => format!("repositories of CodeArtifact's domain `{domain}`"),
            Self::Prometheus => "Managed Service for Prometheus".into(),
            Self::Registry { .. } => "a container registry of ECR".into(),
            Self::TranscribeStreaming => "Transcribe's streaming".into(),
        }
    }

    /// The call that a request to it is.
    pub(crate) fn call(
        &self,
        parts: &Parts,
        body: Option<&[u8]>,
        place: &Place<'_>,
        signing_name: Option<&str>,
    ) -> Result<Call, DecodeError> {
        // Of these APIs no reading has a body; what another reader would make of one isn't known. (OpenSearch's searches
        // have, and customers' own programs may.)
        let plain = matches!(self, Self::CodeCommit | Self::Packages { .. } | Self::Prometheus | Self::Registry { .. });
        if plain && matches!(parts.method, Method::GET | Method::HEAD) && announces_body(parts) {
            return Err(DecodeError::Envelope(format!(
                "the request has a body, and reading {} takes none",
                self.describe()
            )));
        }
        let signing_name = signing_name.or(self.signing_names().first().copied());
        if let Self::EksCluster = self {
            let (asks, parameters) = kubernetes::requirements(parts, place)?;
            return asks.call(parts, place, signing_name).map(|call| models::with(call, parameters));
        }
        if let Self::Mantle = self {
            let (asks, parameters) = models::mantle(parts, body, place)?;
            return asks.call(parts, place, signing_name).map(|call| models::with(call, parameters));
        }
        self.asks(parts, place)?.call(parts, place, signing_name)
    }

    fn asks(&self, parts: &Parts, place: &Place<'_>) -> Result<EndpointRequirements, DecodeError> {
        use AccessLevel::{PermissionsManagement, Read, Write};
        let none = || DecodeError::NoOperation { service: self.describe() };
        let path = parts.uri.path();
        Ok(match self {
            Self::AgentCoreGateway { gateway } => {
                let resource = place.arn("bedrock-agentcore", &format!("gateway/{gateway}"));
                EndpointRequirements::one(
                    "bedrock-agentcore",
                    "bedrock-agentcore:InvokeGateway",
                    PermissionsManagement,
                    resource,
                )
            }
            // Neither fields nor the API can be told: its id isn't the one in the name.
            Self::AppSync => match path {
                "/graphql" => EndpointRequirements::one("appsync", "appsync:GraphQL", Write, "*".into()),
                "/event" => EndpointRequirements::one("appsync", "appsync:EventPublish", Write, "*".into()),
                _ => return Err(none()),
            },
            Self::CodeCommit => code_commit(parts, place).ok_or_else(none)?,
            Self::ExecuteApi { api } => execute_api(api.as_deref(), parts, place)?,
            // Which function it is, only AWS knows.
            Self::LambdaUrl => EndpointRequirements::one("lambda", "lambda:InvokeFunctionUrl", Write, "*".into()),
            Self::Lattice { service } => {
                let resource = |path: String| place.arn("vpc-lattice", &format!("service/{service}{path}"));
                let invoke = || vec![("vpc-lattice-svcs:Invoke", Write)];
                let groups = readings(path)?.into_iter().map(|path| (invoke(), resource(path))).collect();
                EndpointRequirements { service: "vpc-lattice-svcs", groups }
            }
            Self::EksCluster | Self::Mantle => return Err(none()),
            Self::Application(what) | Self::NoAction(what) => return Err(DecodeError::NoAction { what }),
            Self::OpenSearch { domain } => {
                let (action, level) = match parts.method.as_str() {
                    "DELETE" => ("es:ESHttpDelete", Write),
                    "GET" => ("es:ESHttpGet", Read),
                    "HEAD" => ("es:ESHttpHead", Read),
                    "PATCH" => ("es:ESHttpPatch", Write),
                    "POST" => ("es:ESHttpPost", Write),
                    "PUT" => ("es:ESHttpPut", Write),
                    _ => return Err(none()),
                };
                let resource = |path: String| place.arn("es", &format!("domain/{domain}{path}"));
                let groups = readings(path)?.into_iter().map(|path| (vec![(action, level)], resource(path))).collect();
                EndpointRequirements { service: "es", groups }
            }
            Self::OpenSearchServerless { collection: Some(collection) } => {
                let resource = place.arn("aoss", &format!("collection/{collection}"));
                EndpointRequirements::one("aoss", "aoss:APIAccessAll", Write, resource)
            }
            Self::OpenSearchServerless { collection: None } => EndpointRequirements::one(
                "aoss",
                "aoss:DashboardsAccessAll",
                Write,
                place.arn("aoss", "dashboards/default"),
            ),
            Self::Packages { domain, account } => {
                let place = Place { account: Some(account), ..place.clone() };
                packages(domain, parts, &place)?.ok_or_else(none)?
            }
            Self::Prometheus => prometheus(parts, place).ok_or_else(none)?,
            Self::Registry { account } => {
                let place = Place { account: account.as_deref().or(place.account), ..place.clone() };
                registry(parts, &place).ok_or_else(none)?
            }
            Self::TranscribeStreaming => match (parts.method.as_str(), path) {
                ("POST", path) => transcribe(path).ok_or_else(none)?,
                ("GET", path) if path.starts_with("/medical-scribe-stream/") => EndpointRequirements::one(
                    "transcribe-streaming",
                    "transcribe:GetMedicalScribeStream",
                    Read,
                    "*".into(),
                ),
                _ => return Err(none()),
            },
        })
    }
}

/// A stream over HTTP/2.
/// <https://docs.aws.amazon.com/transcribe/latest/APIReference/API_Operations_Amazon_Transcribe_Streaming_Service.html>
fn transcribe(path: &str) -> Option<EndpointRequirements> {
    let action = match path {
        "/call-analytics-stream-transcription" => "transcribe:StartCallAnalyticsStreamTranscription",
        "/medical-scribe-stream" => "transcribe:StartMedicalScribeStream",
        "/medical-stream-transcription" => "transcribe:StartMedicalStreamTranscription",
        "/stream-transcription" => "transcribe:StartStreamTranscription",
        _ => return None,
    };
    Some(EndpointRequirements::one("transcribe-streaming", action, AccessLevel::Write, "*".into()))
}

/// The domain's name in `search-NAME-HASH` or `vpc-NAME-HASH`; names of the dual stack have neither before them.
fn domain(label: &str) -> Option<String> {
    let name = label.strip_prefix("search-").or_else(|| label.strip_prefix("vpc-")).unwrap_or(label);
    let (domain, _hash) = name.rsplit_once('-')?;
    (!domain.is_empty()).then(|| domain.to_owned())
}

/// What package managers ask of a repository: `/FORMAT/REPOSITORY/…`. Which package it is, each format says in its own
/// way, so that what is published counts as all of the format's.
/// <https://docs.aws.amazon.com/codeartifact/latest/ug/using-generic.html> and the chapters on each format
fn packages(domain: &str, parts: &Parts, place: &Place<'_>) -> Result<Option<EndpointRequirements>, DecodeError> {
    use AccessLevel::{Read, Write};
    let path = clear_path(parts.uri.path())?;
    let mut segments = path.split('/').skip(1);
    let (Some(format), Some(repository), Some(_)) = (segments.next(), segments.next(), segments.next()) else {
        return Ok(None);
    };
    let formats = ["cargo", "generic", "maven", "npm", "nuget", "pypi", "ruby", "swift"];
    if !formats.contains(&format) || repository.is_empty() {
        return Ok(None);
    }
    let reads = (
        vec![("codeartifact:ReadFromRepository", Read)],
        place.arn("codeartifact", &format!("repository/{domain}/{repository}")),
    );
    let groups = match parts.method.as_str() {
        "GET" | "HEAD" => vec![reads],
        "PUT" | "POST" | "DELETE" => {
            let actions =
                vec![("codeartifact:PublishPackageVersion", Write), ("codeartifact:PutPackageMetadata", Write)];
            vec![(actions, place.arn("codeartifact", &format!("package/{domain}/{repository}/{format}/*"))), reads]
        }
        _ => return Ok(None),
    };
    Ok(Some(EndpointRequirements { service: "codeartifact", groups }))
}

/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-control-access-using-iam-policies-to-invoke-api.html>
fn execute_api(api: Option<&str>, parts: &Parts, place: &Place<'_>) -> Result<EndpointRequirements, DecodeError> {
    // At a VPC endpoint's own name a header says which API it is.
    let named = single(&parts.headers, "x-apigw-api-id");
    let api = match (api, named) {
        (Some(api), None) => api,
        (None, Some(api)) if api.bytes().all(|b| b.is_ascii_alphanumeric()) && !api.is_empty() => api,
        (Some(_), Some(_)) => return Err(DecodeError::Contradiction("the host and x-apigw-api-id name an API each")),
        _ => return Err(DecodeError::Path("no API named by the host or by x-apigw-api-id")),
    };
    // A client that asks past the stage's cache needs leave to empty it.
    let fresh = |directive: &str| {
        let mut sides = directive.split('=').map(str::trim);
        sides.next().is_some_and(|name| name.eq_ignore_ascii_case("max-age"))
            && sides.next().is_none_or(|age| age.trim_start_matches('0').is_empty())
    };
    let fields = parts.headers.get_all(CACHE_CONTROL).iter();
    let invalidates = fields.into_iter().any(|value| value.to_str().map_or(true, |text| text.split(',').any(fresh)));
    let group = |path: String| {
        let (stage, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let manages = rest.starts_with("@connections/");
        let action = if manages { "execute-api:ManageConnections" } else { "execute-api:Invoke" };
        let mut actions = vec![(action, AccessLevel::Write)];
        if invalidates {
            actions.push(("execute-api:InvalidateCache", AccessLevel::Write));
        }
        (actions, place.arn("execute-api", &format!("{api}/{stage}/{}/{rest}", parts.method)))
    };
    let groups = readings(parts.uri.path())?.into_iter().map(group).collect();
    Ok(EndpointRequirements { service: "execute-api", groups })
}

/// git's smart HTTP protocol: <https://git-scm.com/docs/http-protocol>.
fn code_commit(parts: &Parts, place: &Place<'_>) -> Option<EndpointRequirements> {
    let (repository, rest) = parts.uri.path().strip_prefix("/v1/repos/")?.split_once('/')?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if repository.is_empty() || repository.starts_with('.') || !repository.bytes().all(allowed) {
        return None;
    }
    let query = Query::parse(parts.uri.query()).ok()?;
    let service = match (&parts.method, rest) {
        (&Method::GET, "info/refs") => match &query.0[..] {
            [(name, service)] if name == "service" => service.to_string(),
            _ => return None,
        },
        (&Method::POST, service) if query.0.is_empty() => service.to_owned(),
        _ => return None,
    };
    let (action, level) = match service.as_str() {
        "git-upload-pack" => ("codecommit:GitPull", AccessLevel::Read),
        "git-receive-pack" => ("codecommit:GitPush", AccessLevel::Write),
        _ => return None,
    };
    Some(EndpointRequirements::one("codecommit", action, level, place.arn("codecommit", repository)))
}

/// <https://docs.aws.amazon.com/prometheus/latest/userguide/AMP-APIReference-Prometheus-Compatible-Apis.html>
fn prometheus(parts: &Parts, place: &Place<'_>) -> Option<EndpointRequirements> {
    use AccessLevel::{Read, Write};
    let (workspace, rest) = parts.uri.path().strip_prefix("/workspaces/")?.split_once('/')?;
    if !workspace.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return None;
    }
    let asks = matches!(parts.method, Method::GET | Method::POST);
    let label = rest.strip_prefix("api/v1/label/").and_then(|rest| rest.strip_suffix("/values"));
    let (action, level) = match rest {
        "api/v1/remote_write" if parts.method == Method::POST => ("aps:RemoteWrite", Write),
        "api/v1/query" | "api/v1/query_range" if asks => ("aps:QueryMetrics", Read),
        "api/v1/labels" if asks => ("aps:GetLabels", Read),
        "api/v1/series" if asks => ("aps:GetSeries", Read),
        "api/v1/metadata" if parts.method == Method::GET => ("aps:GetMetricMetadata", Read),
        _ if parts.method == Method::GET && label.is_some_and(|name| !name.contains('/')) => ("aps:GetLabels", Read),
        _ => return None,
    };
    Some(EndpointRequirements::one("aps", action, level, place.arn("aps", &format!("workspace/{workspace}"))))
}

/// The OCI distribution API, by the ECR actions that stand for its steps.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>,
/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html>
fn registry(parts: &Parts, place: &Place<'_>) -> Option<EndpointRequirements> {
    use AccessLevel::{List, Read, Write};
    let path = parts.uri.path().strip_prefix("/v2/")?;
    if path.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        // Clients ask this first, to be told how to log in; it takes no more than a token.
        return Some(EndpointRequirements::one("ecr", "ecr:GetAuthorizationToken", Read, "*".into()));
    }
    let repository = |name: &str| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
        let segments_fit = name.split('/').all(|segment| !segment.is_empty() && !segment.starts_with(['.', '_', '-']));
        (name.bytes().all(allowed) && segments_fit).then(|| place.arn("ecr", &format!("repository/{name}")))
    };
    let one = |action, level, name| Some(EndpointRequirements::one("ecr", action, level, repository(name)?));
    let query = Query::parse(parts.uri.query()).ok()?;
    let method = parts.method.as_str();
    let length = header(&parts.headers, "content-length");
    let has_body = length.is_none_or(|length| length != "0");
    let (rest, last) = path.rsplit_once('/')?;
    if let Some(name) = path.strip_suffix("/tags/list") {
        return if method == "GET" { one("ecr:ListImages", List, name) } else { None };
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads").or_else(|| path.strip_suffix("/blobs/uploads")) {
        let session = path.strip_prefix(name).and_then(|tail| tail.strip_prefix("/blobs/uploads/")).unwrap_or_default();
        let mut actions = match (method, session) {
            ("POST", "") => vec![("ecr:InitiateLayerUpload", Write)],
            ("PATCH", session) if !session.is_empty() => vec![("ecr:UploadLayerPart", Write)],
            ("PUT", session) if !session.is_empty() => vec![("ecr:CompleteLayerUpload", Write)],
            _ => return None,
        };
        if method == "PUT" && has_body {
            actions.push(("ecr:UploadLayerPart", Write));
        }
        if method == "POST" && query.get("digest").is_some() {
            actions.extend([("ecr:UploadLayerPart", Write), ("ecr:CompleteLayerUpload", Write)]);
        }
        let mut groups = vec![(actions, repository(name)?)];
        if let Some(from) = query.get("from") {
            let reads = vec![("ecr:BatchCheckLayerAvailability", Read), ("ecr:GetDownloadUrlForLayer", Read)];
            groups.push((reads, repository(from)?));
        }
        return Some(EndpointRequirements { service: "ecr", groups });
    }
    let (name, kind) = rest.rsplit_once('/')?;
    match (method, kind) {
        _ if last.is_empty() => None,
        ("GET" | "HEAD", "manifests") => one("ecr:BatchGetImage", Read, name),
        ("PUT", "manifests") => one("ecr:PutImage", Write, name),
        ("DELETE", "manifests") => one("ecr:BatchDeleteImage", Write, name),
        ("GET", "blobs") => one("ecr:GetDownloadUrlForLayer", Read, name),
        // Of signatures and the like that refer to an image, by the API of that name.
        ("GET", "referrers") => Some(EndpointRequirements {
            service: "ecr",
            groups: vec![(vec![("ecr:ListImageReferrers", List), ("ecr:BatchGetImage", Read)], repository(name)?)],
        }),
        ("HEAD", "blobs") => one("ecr:BatchCheckLayerAvailability", Read, name),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
