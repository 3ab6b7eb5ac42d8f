//! The Kubernetes API of an EKS cluster: which verb on which resource a request is, as the API server itself reads it
//! (`k8s.io/apiserver/pkg/endpoints/request`, `RequestInfoFactory.NewRequestInfo`).
//!
//! IAM has no actions for it. These are named after Kubernetes' own verbs, `k8s:get` and its like, on resources below the
//! cluster's ARN: `arn:aws:eks:REGION:ACCOUNT:cluster/NAME/namespaces/NAMESPACE/pods/NAME`. What a verb alone doesn't say
//! (that a `get` reads a secret, or opens a shell) is an action of its own, needed besides.

use std::sync::Arc;

use chaperone_model::AccessLevel;
use http::{Method, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::{
    decode_error::DecodeError,
    endpoint::{EndpointRequirements, clear_path},
    kubernetes_actions::{ACTIONS, KUBERNETES},
    resources::Place,
};

/// The cluster that a request is for, in its extensions. The host's name doesn't say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(pub Arc<str>);

/// What comes after a resource's name and reaches further than the API server.
const CONNECTING: [&str; 4] = ["attach", "exec", "portforward", "proxy"];
/// Groups whose objects say who may do what.
const GRANTING: [&str; 2] = ["rbac.authorization.k8s.io", "admissionregistration.k8s.io"];
/// Names of resources, namespaces and objects, and versions, in bytes (Kubernetes has 253 at most).
const MAX_SEGMENT: usize = 253;

/// What a request to a cluster needs, and what policies see of it.
pub(crate) fn requirements(parts: &Parts, place: &Place<'_>) -> Result<(EndpointRequirements, Value), DecodeError> {
    let asked = Asked::of(parts)?;
    // Where the name isn't known nothing goes on: this is for people who ask what a request would be.
    let cluster = parts.extensions.get::<ClusterName>().map_or("*", |name| &name.0);
    let resource = place.arn("eks", &format!("cluster/{cluster}/{}", asked.resource()));
    let mut actions = vec![level(asked.verb)];
    actions.extend(asked.besides(parts).into_iter().map(level));
    Ok((EndpointRequirements { service: KUBERNETES, groups: vec![(actions, resource)] }, asked.parameters()))
}

fn level(name: &'static str) -> (&'static str, AccessLevel) {
    *ACTIONS.iter().find(|(own, _)| *own == name).expect("BUG: an action that isn't listed")
}

/// What is asked of the API server.
#[derive(Debug, Default)]
struct Asked {
    verb: &'static str,
    /// Empty for the core's.
    group: String,
    namespace: Option<String>,
    /// Empty where it is none of a resource: then `rest` is the path.
    kind: String,
    name: Option<String>,
    /// `exec`, `status`, `log`, …
    subresource: Option<String>,
    rest: Vec<String>,
}

impl Asked {
    fn of(parts: &Parts) -> Result<Self, DecodeError> {
        let path = parts.uri.path();
        // With a slash after it it is the same to the API server, and Kubernetes' Python client writes one.
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        let path = clear_path(path)?;
        let segments: Vec<&str> = path.split('/').skip(1).filter(|_| path != "/").collect();
        let unfit = |segment: &&str| segment.is_empty() || segment.len() > MAX_SEGMENT || segment.contains(['*', '\\']);
        if segments.iter().any(unfit) {
            return Err(DecodeError::Path("a path that names nothing of Kubernetes'"));
        }
        let (group, rest) = match &segments[..] {
            ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
            all => {
                let rest = all.iter().map(|&segment| segment.to_owned()).collect();
                return Ok(Self { verb: verb(&parts.method)?, rest, ..Self::default() });
            }
        };
        // Before there was a parameter for it, watching had a path of its own.
        let (watching, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            ["watch" | "proxy", ..] => return Err(DecodeError::Path("a path of Kubernetes' that is no longer there")),
            rest => (false, rest),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, kind, ..] if !matches!(*kind, "status" | "finalize") => {
                (Some((*namespace).to_owned()), &rest[2..])
            }
            ["namespaces", namespace, ..] => (Some((*namespace).to_owned()), rest),
            _ => (None, rest),
        };
        let mut rest = rest.iter().map(|&segment| segment.to_owned());
        let kind = rest.next().ok_or(DecodeError::Path("a path that names nothing of Kubernetes'"))?;
        let (name, subresource) = (rest.next(), rest.next());
        let mut asked = Self {
            verb: verb(&parts.method)?,
            group: group.to_owned(),
            namespace,
            kind,
            name,
            subresource,
            rest: rest.collect(),
        };
        asked.verb = match (asked.verb, &asked.name) {
            _ if watching && asked.verb == "k8s:get" => "k8s:watch",
            ("k8s:get", None) if watches(parts.uri.query().unwrap_or_default())? => "k8s:watch",
            ("k8s:get", None) => "k8s:list",
            ("k8s:delete", None) => "k8s:deletecollection",
            (verb, _) => verb,
        };
        Ok(asked)
    }

    /// Below the cluster's name.
    fn resource(&self) -> String {
        let mut segments: Vec<&str> = Vec::new();
        let kind = if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) };
        if self.kind.is_empty() {
            // No resource is called so: their names are in lower case.
            segments.push("nonResourceURLs");
        } else {
            if let Some(namespace) = self.namespace.as_deref().filter(|_| self.kind != "namespaces") {
                segments.extend(["namespaces", namespace]);
            }
            segments.push(&kind);
            segments.extend(self.name.as_deref());
            segments.extend(self.subresource.as_deref());
        }
        segments.extend(self.rest.iter().map(String::as_str));
        segments.join("/")
    }

    /// What is needed besides the verb.
    fn besides(&self, parts: &Parts) -> Vec<&'static str> {
        let is = |group: &str, kind: &str| self.group == group && self.kind == kind;
        let subresource = self.subresource.as_deref().unwrap_or_default();
        let reads = matches!(self.verb, "k8s:get" | "k8s:list" | "k8s:watch");
        let mut besides = Vec::new();
        if CONNECTING.contains(&subresource) {
            besides.push("k8s:connect");
        }
        if is("", "secrets") && self.verb != "k8s:create" {
            besides.push("k8s:readSecret");
        }
        if is("", "serviceaccounts") && subresource == "token" {
            besides.push("k8s:createToken");
        }
        let approves = is("certificates.k8s.io", "certificatesigningrequests") && subresource == "approval";
        if !reads && (GRANTING.contains(&self.group.as_str()) || approves) {
            besides.push("k8s:grant");
        }
        if parts.headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            besides.push("k8s:impersonate");
        }
        besides
    }

    /// What policies see.
    fn parameters(&self) -> Value {
        let mut all = Map::new();
        let mut tell = |name: &str, value: &str| {
            if !value.is_empty() {
                all.insert(name.to_owned(), value.into());
            }
        };
        tell("verb", self.verb.trim_start_matches("k8s:"));
        tell("apiGroup", &self.group);
        tell("namespace", self.namespace.as_deref().unwrap_or_default());
        tell("resource", &self.kind);
        tell("name", self.name.as_deref().unwrap_or_default());
        tell("subresource", self.subresource.as_deref().unwrap_or_default());
        Value::Object(all)
    }
}

fn verb(method: &Method) -> Result<&'static str, DecodeError> {
    Ok(match *method {
        Method::DELETE => "k8s:delete",
        Method::GET | Method::HEAD => "k8s:get",
        Method::PATCH => "k8s:patch",
        Method::POST => "k8s:create",
        Method::PUT => "k8s:update",
        _ => return Err(DecodeError::NoOperation { service: "the Kubernetes API".into() }),
    })
}

/// Whether a list is to be followed. Said twice, readers differ.
fn watches(query: &str) -> Result<bool, DecodeError> {
    let mut watches = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decode_str(name).decode_utf8_lossy() != "watch" {
            continue;
        }
        let value = percent_decode_str(value).decode_utf8_lossy().to_ascii_lowercase();
        if watches.replace(!matches!(value.as_str(), "false" | "0")).is_some() {
            return Err(DecodeError::Contradiction("the parameter `watch`, twice"));
        }
    }
    Ok(watches.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{Catalog, RequestAuth};

    const HOST: &str = "0123456789ABCDEF0123456789ABCDEF.gr7.eu-west-1.eks.amazonaws.com";

    /// The actions, and the resource below the cluster's ARN.
    fn asked(method: &str, target: &str, field: Option<&str>) -> Result<(String, String), DecodeError> {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(name) = field {
            request = request.header(name, "somebody");
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        parts.extensions.insert(ClusterName("prod".into()));
        let host = Catalog::global().host(HOST).unwrap();
        let call = Catalog::global().decode(&host, &parts, None, &RequestAuth::Bearer, Some("123456789012"))?;
        let names: Vec<_> = call.actions.iter().map(|it| it.name.trim_start_matches("k8s:")).collect();
        let [resource] = &call.resources[..] else { panic!("{:?}", call.resources) };
        let below = resource.strip_prefix("arn:aws:eks:eu-west-1:123456789012:cluster/prod/");
        Ok((names.join(" "), below.expect("below the cluster").to_owned()))
    }

    #[test]
    fn requests_are_read_as_the_api_server_reads_them() {
        for (method, target, actions, resource) in [
            ("GET", "/api/v1/namespaces/default/pods?limit=500", "list", "namespaces/default/pods"),
            ("GET", "/api/v1/namespaces/default/pods/web", "get", "namespaces/default/pods/web"),
            ("HEAD", "/api/v1/namespaces/default/pods/web", "get", "namespaces/default/pods/web"),
            ("GET", "/api/v1/namespaces/default/pods?watch=true&limit=5", "watch", "namespaces/default/pods"),
            ("GET", "/api/v1/pods?watch=1", "watch", "pods"),
            ("GET", "/api/v1/pods?%77atch=1", "watch", "pods"),
            ("GET", "/api/v1/pods?watch", "watch", "pods"),
            ("GET", "/api/v1/pods?watch=False", "list", "pods"),
            ("GET", "/api/v1/watch/namespaces/default/pods/web", "watch", "namespaces/default/pods/web"),
            ("GET", "/api/v1/namespaces/default/pods/web/log?follow=true", "get", "namespaces/default/pods/web/log"),
            ("POST", "/api/v1/namespaces/default/pods", "create", "namespaces/default/pods"),
            (
                "POST",
                "/api/v1/namespaces/default/pods/web/exec?command=sh",
                "create connect",
                "namespaces/default/pods/web/exec",
            ),
            (
                "GET",
                "/api/v1/namespaces/default/pods/web/exec?command=sh",
                "get connect",
                "namespaces/default/pods/web/exec",
            ),
            ("GET", "/api/v1/nodes/n1/proxy/metrics", "get connect", "nodes/n1/proxy/metrics"),
            (
                "GET",
                "/api/v1/namespaces/default/services/https:web:443/proxy/a/b",
                "get connect",
                "namespaces/default/services/https:web:443/proxy/a/b",
            ),
            ("GET", "/api/v1/namespaces", "list", "namespaces"),
            ("GET", "/api/v1/namespaces/default", "get", "namespaces/default"),
            ("PUT", "/api/v1/namespaces/default/finalize", "update", "namespaces/default/finalize"),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d", "patch", "namespaces/a/deployments.apps/d"),
            (
                "PUT",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "update",
                "namespaces/a/deployments.apps/d/scale",
            ),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", "delete", "namespaces/a/deployments.apps/d"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection", "namespaces/a/deployments.apps"),
            ("GET", "/api/v1/namespaces/a/secrets", "list readSecret", "namespaces/a/secrets"),
            ("PATCH", "/api/v1/namespaces/a/secrets/s", "patch readSecret", "namespaces/a/secrets/s"),
            ("POST", "/api/v1/namespaces/a/secrets", "create", "namespaces/a/secrets"),
            (
                "POST",
                "/api/v1/namespaces/a/serviceaccounts/s/token",
                "create createToken",
                "namespaces/a/serviceaccounts/s/token",
            ),
            (
                "POST",
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                "create grant",
                "clusterrolebindings.rbac.authorization.k8s.io",
            ),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get",
                "clusterroles.rbac.authorization.k8s.io/system:node",
            ),
            ("GET", "/version", "get", "nonResourceURLs/version"),
            ("GET", "/version/", "get", "nonResourceURLs/version"),
            ("GET", "/api", "get", "nonResourceURLs/api"),
            ("GET", "/apis/apps/v1", "get", "nonResourceURLs/apis/apps/v1"),
            ("GET", "/", "get", "nonResourceURLs"),
        ] {
            assert_eq!(asked(method, target, None), Ok((actions.to_owned(), resource.to_owned())), "{method} {target}");
        }
        let other = asked("GET", "/api/v1/pods", Some("Impersonate-Extra-x")).unwrap();
        assert_eq!(other.0, "list impersonate");
    }

    #[test]
    fn what_two_could_read_differently_is_refused() {
        for (method, target) in [
            ("GET", "/api/v1/namespaces/a/../b/pods"),
            ("GET", "/api/v1/namespaces/a/%2e%2e/pods"),
            ("GET", "/api/v1//secrets"),
            ("GET", "/api/v1/namespaces/a/%73ecrets"),
            ("GET", "/api/v1/namespaces/a/secrets//"),
            ("GET", "/api/v1/namespaces/a/secrets/*"),
            ("GET", "/api/v1/pods?watch=true&watch=false"),
            ("GET", "/api/v1/proxy/nodes/n1"),
            ("GET", "/api/v1/watch"),
            ("OPTIONS", "/api/v1/pods"),
            ("TRACE", "/api/v1/pods"),
        ] {
            assert!(asked(method, target, None).is_err(), "{method} {target}: {:?}", asked(method, target, None));
        }
        let long = format!("/api/v1/namespaces/{}/pods", "a".repeat(300));
        assert!(asked("GET", &long, None).is_err());
    }
}
