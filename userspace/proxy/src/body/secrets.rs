//! Answers are looked through for credentials that nobody expected in them: by their content, whatever was asked.

use bytes::Bytes;
use chaperone_aws::{AwsCredentials, Placeholder, SecretFound, SecretScan, VendingCall};
use chaperone_model::Call;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    response,
};

use crate::body::transform::{BodyTransform, Mode, TransformError};

/// An answer up to this size is read to its end before it goes on, so that what is found in it becomes an error of AWS's
/// own form, and head and body leave together.
const MAX_WHOLE: u64 = 16 * 1024;

/// Services whose answers a customer's own program writes: what encoding they are in is its affair.
const CUSTOMERS: [&str; 6] = ["appsync", "bedrock-agentcore", "es", "execute-api", "aoss", "vpc-lattice-svcs"];

/// An answer that is looked through.
pub(crate) struct ScannedAnswer {
    scan: SecretScan,
    method: Method,
    /// The body must be readable.
    reads: bool,
    /// It is refused for what its head says.
    refused: Option<&'static str>,
}

impl ScannedAnswer {
    /// For whole sets of credentials. `None` where they are expected and replaced, and for objects of S3, which are
    /// whatever somebody has stored.
    pub(crate) fn for_sets(call: &Call, method: &Method) -> Option<Box<dyn BodyTransform>> {
        let object = call.service == "s3" && matches!(&*call.operation, "GetObject" | "GetObjectTorrent");
        if object || VendingCall::of(call).is_some() {
            return None;
        }
        let reads = !CUSTOMERS.contains(&&*call.service);
        let scan = SecretScan::default().with_sets();
        Some(Box::new(Self { scan, method: method.clone(), reads, refused: None }))
    }

    /// For the key that signed the request, which AWS says again in some errors.
    pub(crate) fn for_key(
        signed_by: &AwsCredentials,
        placeholder: &Placeholder,
        method: &Method,
    ) -> Box<dyn BodyTransform> {
        let scan = SecretScan::of(signed_by, Some(placeholder));
        Box::new(Self { scan, method: method.clone(), reads: false, refused: None })
    }
}

impl BodyTransform for ScannedAnswer {
    fn reads(&self) -> bool {
        self.reads
    }

    fn head(&mut self, head: &mut response::Parts) -> Mode {
        for value in head.headers.values_mut() {
            if let Some(clean) = self.scan.field(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(""));
            }
        }
        if self.method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Mode::Untouched;
        }
        if self.reads && is_encoded(&head.headers) && is_structured(&head.headers) {
            self.refused = Some("it is compressed, which it was asked not to be, and may hold credentials");
            return Mode::Whole;
        }
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length <= MAX_WHOLE) { Mode::Whole } else { Mode::Streaming }
    }

    fn push(&mut self, bytes: Bytes, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        if let Some(why) = self.refused {
            return Err(TransformError(why.to_owned()));
        }
        let given = match self.scan.push(&bytes).map_err(found)? {
            std::borrow::Cow::Borrowed(part) => bytes.slice(..part.len()),
            std::borrow::Cow::Owned(changed) => changed.into(),
        };
        out.push(given);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        out.push(self.scan.finish().into());
        Ok(())
    }
}

fn found(error: SecretFound) -> TransformError {
    TransformError(error.to_string())
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity")
}

fn is_structured(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
        ["json", "xml", "cbor", "urlencoded"].iter().any(|part| kind.contains(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(service: &str, operation: &str) -> Call {
        let call = serde_json::json!({
            "partition": "aws",
            "region": null,
            "account": null,
            "service": service,
            "signing_name": service,
            "operation": operation,
            "protocol": "json",
            "actions": [],
            "resources": [],
            "payload": "none",
        });
        serde_json::from_value(call).unwrap()
    }

    fn head(fields: &[(&'static str, &str)]) -> response::Parts {
        let mut response = http::Response::new(()).into_parts().0;
        for (name, value) in fields {
            response.headers.insert(*name, value.parse().unwrap());
        }
        response
    }

    #[test]
    fn what_is_stored_or_replaced_is_not_looked_through_for_sets() {
        let looks = |service, operation| ScannedAnswer::for_sets(&call(service, operation), &Method::POST).is_some();
        assert!(looks("iam", "ListUsers") && looks("s3", "ListObjectsV2"));
        assert!(!looks("s3", "GetObject") && !looks("sts", "AssumeRole"));
    }

    #[test]
    fn heads_without_bodies_stay_and_small_answers_are_read_whole() {
        let mode = |method: Method, fields: &[(&'static str, &str)]| {
            ScannedAnswer::for_sets(&call("iam", "ListUsers"), &method).unwrap().head(&mut head(fields))
        };
        assert_eq!(mode(Method::HEAD, &[("content-length", "5")]), Mode::Untouched);
        assert_eq!(mode(Method::POST, &[("content-length", "5")]), Mode::Whole);
        assert_eq!(mode(Method::POST, &[("content-length", "500000")]), Mode::Streaming);
        assert_eq!(mode(Method::POST, &[]), Mode::Streaming);
    }

    #[test]
    fn a_set_of_credentials_ends_the_answer() {
        let set = "{\"AccessKeyId\":\"ASIAQWERTYUIOPASDFGH\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\"}";
        let mut answer = ScannedAnswer::for_sets(&call("iam", "ListUsers"), &Method::POST).unwrap();
        answer.head(&mut head(&[]));
        let mut out = Vec::new();
        assert!(answer.push(set.into(), &mut out).is_err());
        assert!(out.is_empty());
        let mut packed = ScannedAnswer::for_sets(&call("iam", "ListUsers"), &Method::POST).unwrap();
        packed.head(&mut head(&[("content-encoding", "gzip"), ("content-type", "text/xml")]));
        assert!(packed.push("x".into(), &mut out).is_err());
    }
}
