//! What a request is taken for, and why, for people and for tests: the same decoding that decides calls, written out.

use std::borrow::Cow;

use chaperone_model::{AccessLevel, Action, Call, Payload, Protocol, References, UnknownResources};
use http::request::Parts;
use serde::{Serialize, Serializer, ser::SerializeSeq};

use crate::{
    catalog::Catalog,
    decode::BodyNeed,
    decode_error::DecodeError,
    host::{HostKind, HostMatch},
    request_auth::{RequestAuth, payload_shape},
};

/// What a request is taken for. What isn't known is `null`, and then [`error`](Self::error) says why.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// botocore's name of the service.
    pub service: Option<Cow<'static, str>>,
    /// The operation.
    pub operation: Option<Cow<'static, str>>,
    /// All `service:Operation` that the request can be; one, if it is clear.
    pub candidates: Vec<String>,
    /// Partition of the host's name.
    pub partition: Option<Cow<'static, str>>,
    /// Region of the host's name, or of the signature's scope where the name has none.
    pub region: Option<Cow<'static, str>>,
    /// The account of the credentials that would sign, as far as it was told.
    pub account: Option<Cow<'static, str>>,
    /// The IAM actions that are needed, every one.
    #[serde(serialize_with = "names")]
    pub actions: Vec<Action>,
    /// The highest access level among them.
    pub access_level: Option<AccessLevel>,
    /// The ARNs (or `*`) that are touched.
    pub resources: Vec<String>,
    /// Which action on which resource, when it is not every action on every resource.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<(String, String)>,
    /// What it may touch besides, as far as is known: an ARN with `*`, for which action, and why it isn't known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<UnknownResources>,
    /// Parts of the request that nothing here understands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// ARNs and accounts anywhere in the input.
    #[serde(skip_serializing_if = "References::is_empty")]
    pub references: References,
    /// The name that the service signs by.
    pub signing_name: Option<Cow<'static, str>>,
    /// The wire protocol.
    pub protocol: Option<Protocol>,
    /// How the payload is bound to the signature.
    pub payload: Payload,
    /// By what authority the request comes.
    pub authority: &'static str,
    /// What each conclusion rests on.
    pub why: Vec<String>,
    /// The operation's input as a policy sees it.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub parameters: serde_json::Value,
    /// Why it can't be told what the request is. Such a request is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn names<S: Serializer>(actions: &[Action], serializer: S) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(actions.len()))?;
    for action in actions {
        sequence.serialize_element(&action.name)?;
    }
    sequence.end()
}

impl Catalog {
    /// Explains a request. `host` is the one name that it is for, already found to be a plain DNS name; `account` is
    /// whose credentials would sign.
    pub fn explain(&'static self, host: &str, parts: &Parts, body: &[u8], account: Option<&str>) -> Explanation {
        let authority = RequestAuth::of(parts);
        let payload = payload_shape(parts);
        let Some(found) = self.host(host) else {
            let why =
                format!("`{host}` is not a name of AWS: the daemon passes such connections on without reading them");
            return Explanation::unknown(payload, authority.describe(), Vec::new(), why);
        };
        let mut why = vec![host_reason(host, &found)];
        if let RequestAuth::Header(header) = &authority {
            why.push(format!("it is signed for {} in {}", header.service, header.region));
        }
        match self.call(&found, parts, body, &authority, account) {
            Ok(call) => Explanation::of(call, parts, authority.describe(), why),
            Err(error) => {
                let region = found.region.clone();
                let mut unknown = Explanation::unknown(payload, authority.describe(), why, error.to_string());
                unknown.partition = Some(Cow::Borrowed(found.partition));
                unknown.region = region;
                let mut services = found.services();
                if let (Some(only), None) = (services.next(), services.next()) {
                    unknown.service = Some(Cow::Borrowed(only));
                }
                unknown
            }
        }
    }
}

impl Catalog {
    /// The call that a request is, as the data path decodes it; or why it isn't one that can be told.
    pub fn read_call(
        &'static self,
        host: &str,
        parts: &Parts,
        body: &[u8],
        account: Option<&str>,
    ) -> Result<Call, String> {
        let found = self.host(host).ok_or_else(|| format!("`{host}` is not a name of AWS"))?;
        self.call(&found, parts, body, &RequestAuth::of(parts), account).map_err(|error| error.to_string())
    }

    /// As the data path does it: what may stream is decoded without its body.
    fn call(
        &'static self,
        found: &HostMatch,
        parts: &Parts,
        body: &[u8],
        authority: &RequestAuth<'_>,
        account: Option<&str>,
    ) -> Result<Call, DecodeError> {
        let payload = payload_shape(parts);
        let whole =
            matches!(payload, Payload::ImpliedHash | Payload::None) || self.body_need(found, parts) == BodyNeed::Whole;
        self.decode(found, parts, whole.then_some(body), authority, account)
    }
}

impl Explanation {
    /// Nothing is known of the request but why.
    pub fn unknown(payload: Payload, authority: &'static str, why: Vec<String>, error: String) -> Self {
        Self {
            service: None,
            operation: None,
            candidates: Vec::new(),
            partition: None,
            region: None,
            account: None,
            actions: Vec::new(),
            access_level: None,
            resources: Vec::new(),
            needs: Vec::new(),
            unknown: Vec::new(),
            unread: Vec::new(),
            references: References::default(),
            signing_name: None,
            protocol: None,
            payload,
            authority,
            why,
            parameters: serde_json::Value::Null,
            error: Some(error),
        }
    }

    fn of(call: Call, parts: &Parts, authority: &'static str, mut why: Vec<String>) -> Self {
        why.push(operation_reason(&call, parts));
        let candidates = if call.candidates.is_empty() {
            vec![format!("{}:{}", call.service, call.operation)]
        } else {
            why.push(
                "nothing in the request tells the candidates apart: what each of them needs must be permitted".into(),
            );
            call.candidates.clone()
        };
        let needs = if call.pairs.is_empty() {
            Vec::new()
        } else {
            call.needs().map(|(action, resource)| (action.name.clone().into_owned(), resource.to_owned())).collect()
        };
        Self {
            access_level: Some(call.level()),
            candidates,
            needs,
            service: Some(call.service),
            operation: Some(call.operation),
            partition: Some(call.partition),
            region: call.region,
            account: call.account,
            actions: call.actions,
            resources: call.resources,
            unknown: call.unknown,
            unread: call.unread,
            references: call.references,
            signing_name: Some(call.signing_name),
            protocol: Some(call.protocol),
            payload: call.payload,
            authority,
            why,
            parameters: call.parameters,
            error: None,
        }
    }
}

fn host_reason(host: &str, found: &HostMatch) -> String {
    let region = match &found.region {
        Some(region) => format!("in {region}"),
        None => "without a region".to_owned(),
    };
    let is = match &found.kind {
        HostKind::Endpoint(endpoint) => endpoint.describe(),
        HostKind::S3Bucket { bucket, at } => format!("S3 ({at:?}) with `{bucket}` in the name"),
        HostKind::S3ExpressControl => "S3 Express's regional endpoint".to_owned(),
        HostKind::S3Path => "S3, with the bucket in the path".to_owned(),
        HostKind::Service => found.services().collect::<Vec<_>>().join(" or "),
        HostKind::Unknown => "a name of AWS by which no service is known".to_owned(),
    };
    format!("the host `{host}` is {is}, {region}, partition {}", found.partition)
}

fn operation_reason(call: &Call, parts: &Parts) -> String {
    match call.protocol {
        Protocol::Json => "the field X-Amz-Target names the operation".to_owned(),
        Protocol::Query | Protocol::Ec2 => "the form field Action names the operation".to_owned(),
        Protocol::RpcV2Cbor => "the path /service/…/operation/… names the operation".to_owned(),
        Protocol::RestJson | Protocol::RestXml | Protocol::Http => {
            format!("method {}, path, query and required fields are this operation's alone", parts.method)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn explain(method: &str, host: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> serde_json::Value {
        let mut request = Request::builder().method(method).uri(target).header("host", host);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        serde_json::to_value(Catalog::global().explain(host, &parts, body, Some("123456789012"))).unwrap()
    }

    #[test]
    fn what_is_decoded_is_written_out() {
        let copy = [("x-amz-copy-source", "/from/a")];
        let is = explain("PUT", "to.s3.eu-west-1.amazonaws.com", "/b", &copy, b"");
        assert_eq!(is["service"], "s3");
        assert_eq!(is["operation"], "CopyObject");
        assert_eq!(is["candidates"], serde_json::json!(["s3:CopyObject"]));
        assert_eq!((&is["region"], &is["account"]), (&"eu-west-1".into(), &"123456789012".into()));
        assert_eq!(is["actions"], serde_json::json!(["s3:PutObject", "s3:GetObject"]));
        assert_eq!(is["access_level"], "Write");
        assert_eq!(is["resources"], serde_json::json!(["arn:aws:s3:::to/b", "arn:aws:s3:::from/a"]));
        assert_eq!(
            is["needs"],
            serde_json::json!([["s3:PutObject", "arn:aws:s3:::to/b"], ["s3:GetObject", "arn:aws:s3:::from/a"]])
        );
        assert_eq!((&is["signing_name"], &is["payload"]), (&"s3".into(), &"none".into()));
        assert!(is.get("error").is_none(), "{is}");
    }

    #[test]
    fn what_is_not_known_is_written_out() {
        let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let body = b"Action=DeleteSecurityGroup&Version=2016-11-15&GroupName=g";
        let is = explain("POST", "ec2.eu-west-1.amazonaws.com", "/", &form, body);
        let all = "arn:aws:ec2:eu-west-1:123456789012:security-group/*";
        let expected = serde_json::json!([{"action": 0, "pattern": all, "why": "not named by GroupId"}]);
        assert_eq!(is["unknown"], expected, "{is}");
    }

    #[test]
    fn what_is_not_decoded_says_why_and_what_is_known() {
        let is = explain("GET", "example.com", "/", &[], b"");
        assert!(is["error"].as_str().unwrap().contains("not a name of AWS"), "{is}");
        let is = explain("POST", "dynamodb.eu-west-1.amazonaws.com", "/", &[("x-amz-target", "No.Such")], b"{}");
        assert_eq!((&is["service"], &is["operation"]), (&"dynamodb".into(), &serde_json::Value::Null));
        assert_eq!(is["region"], "eu-west-1");
        assert!(is["error"].as_str().unwrap().contains("no operation of dynamodb"), "{is}");
    }

    #[test]
    fn candidates_are_all_named() {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = b"Action=DescribeDBInstances&Version=2014-10-31";
        let is = explain("POST", "rds.eu-west-1.amazonaws.com", "/", &form, body);
        let candidates = is["candidates"].as_array().unwrap();
        assert!(candidates.contains(&"rds:DescribeDBInstances".into()), "{is}");
        assert!(candidates.contains(&"neptune:DescribeDBInstances".into()), "{is}");
    }
}
