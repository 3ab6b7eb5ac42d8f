//! Errors in AWS's own shapes, so that SDKs raise their ordinary exceptions.

use bytes::Bytes;
use chaperone_model::Protocol;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_TYPE, DATE},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use crate::MAX_CLOCK_SKEW;

/// Which of AWS's errors it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Denied: 403, not retried.
    AccessDenied,
    /// The request is one that can't be understood or passed on: 400, not retried.
    InvalidRequest,
    /// The agent's signature is wrong or by another key: 403, not retried.
    InvalidSignature,
    /// The agent's clock is wrong: 403, after which SDKs correct theirs by the answer's date, and ask again.
    Skewed {
        /// When the request says that it was signed.
        signed: OffsetDateTime,
        /// What time it is.
        now: OffsetDateTime,
    },
    /// The agent has as much as it may of something: retried by SDKs, more slowly each time.
    Throttled,
    /// Nothing can be done now: 503, retried by SDKs.
    Unavailable,
}

/// An error to be told to an agent.
#[derive(Clone, Debug)]
pub struct AwsError<'a> {
    /// The call's protocol; what is not decoded is best guessed by [`AwsError::guess`].
    pub protocol: Protocol,
    /// botocore's name of the service, which may have codes of its own (`ec2`, `s3`).
    pub service: &'a str,
    /// Which error.
    pub kind: ErrorKind,
    /// For people: who may not do what, and by which policy.
    pub message: &'a str,
    /// Becomes AWS's request id: the call's own id.
    pub request_id: &'a str,
}

impl AwsError<'_> {
    /// The protocol that a request seems to be in when it was not decoded, by its head alone.
    pub fn guess(parts: &http::request::Parts, host: Option<&crate::HostMatch>) -> Protocol {
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if host.is_some_and(crate::HostMatch::is_s3) {
            Protocol::RestXml
        } else if parts.headers.contains_key("x-amz-target") {
            Protocol::Json
        } else if parts.headers.contains_key("smithy-protocol") {
            Protocol::RpcV2Cbor
        } else if content_type.starts_with("application/x-www-form-urlencoded") {
            if host.is_some_and(|host| host.services().any(|name| name == "ec2")) {
                Protocol::Ec2
            } else {
                Protocol::Query
            }
        } else if content_type.contains("xml") {
            Protocol::RestXml
        } else {
            Protocol::RestJson
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::InvalidSignature | ErrorKind::Skewed { .. } if self.service == "k8s" => StatusCode::UNAUTHORIZED,
            ErrorKind::Skewed { .. } if self.protocol == Protocol::Ec2 => StatusCode::BAD_REQUEST,
            ErrorKind::AccessDenied | ErrorKind::InvalidSignature | ErrorKind::Skewed { .. } => StatusCode::FORBIDDEN,
            // The SDKs know it by its code. S3 and EC2 have a status of their own for it.
            ErrorKind::Throttled if self.service == "s3" || self.protocol == Protocol::Ec2 => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorKind::Throttled if matches!(self.protocol, Protocol::RestJson | Protocol::Http) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            ErrorKind::InvalidRequest | ErrorKind::Throttled => StatusCode::BAD_REQUEST,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The error's code, as the service spells it.
    pub fn code(&self) -> &'static str {
        use ErrorKind::{AccessDenied, InvalidRequest, InvalidSignature, Skewed, Throttled, Unavailable};
        let xml = matches!(self.protocol, Protocol::Ec2 | Protocol::Query | Protocol::RestXml);
        match self.kind {
            AccessDenied if self.protocol == Protocol::Ec2 => "UnauthorizedOperation",
            AccessDenied if xml => "AccessDenied",
            AccessDenied => "AccessDeniedException",
            InvalidSignature if self.protocol == Protocol::Ec2 => "AuthFailure",
            Skewed { .. } if self.protocol == Protocol::Ec2 => "RequestExpired",
            Skewed { .. } if self.protocol == Protocol::RestXml && self.service == "s3" => "RequestTimeTooSkewed",
            InvalidSignature | Skewed { .. } if xml => "SignatureDoesNotMatch",
            InvalidSignature | Skewed { .. } => "InvalidSignatureException",
            InvalidRequest if self.protocol == Protocol::Ec2 => "InvalidRequest",
            InvalidRequest if xml => "InvalidRequest",
            InvalidRequest => "ValidationException",
            Throttled if self.protocol == Protocol::Ec2 => "RequestLimitExceeded",
            Throttled if self.protocol == Protocol::RestXml && self.service == "s3" => "SlowDown",
            Throttled if xml => "Throttling",
            Throttled => "ThrottlingException",
            Unavailable if self.protocol == Protocol::Ec2 => "Unavailable",
            Unavailable if self.protocol == Protocol::RestXml && self.service == "s3" => "SlowDown",
            Unavailable if xml => "ServiceUnavailable",
            Unavailable => "ServiceUnavailableException",
        }
    }
}

impl ErrorKind {
    /// What S3 tells of both clocks.
    fn times(self) -> String {
        let Self::Skewed { signed, now } = self else { return String::new() };
        let text = |time: OffsetDateTime| time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok();
        let (Some(signed), Some(now)) = (text(signed), text(now)) else { return String::new() };
        let most = MAX_CLOCK_SKEW.whole_milliseconds();
        format!(
            "<RequestTime>{signed}</RequestTime><ServerTime>{now}</ServerTime>\
             <MaxAllowedSkewMilliseconds>{most}</MaxAllowedSkewMilliseconds>"
        )
    }
}

/// RFC 9110, 5.6.7.
fn http_date(time: OffsetDateTime) -> Option<HeaderValue> {
    let format =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    HeaderValue::from_str(&time.to_offset(time::UtcOffset::UTC).format(format).ok()?).ok()
}

/// The whole answer. A HEAD request's has no body, as AWS's hasn't.
pub fn error_response(error: &AwsError<'_>, method: &Method) -> Response<Bytes> {
    let (code, message, id) = (error.code(), error.message, error.request_id);
    let escaped = |text: &str| quick_xml::escape::escape(text).into_owned();
    let (content_type, body) = match error.protocol {
        _ if error.service == "k8s" => ("application/json", kubernetes_status(error)),
        Protocol::Json => ("application/x-amz-json-1.1", json(code, message)),
        Protocol::RestJson => ("application/json", json(code, message)),
        Protocol::Http => ("text/plain; charset=utf-8", format!("{code}: {message}\n").into_bytes()),
        Protocol::RpcV2Cbor => ("application/cbor", cbor(&[("__type", code), ("message", message)])),
        Protocol::Ec2 => (
            "text/xml;charset=UTF-8",
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
                 <Message>{}</Message></Error></Errors><RequestID>{}</RequestID></Response>",
                escaped(message),
                escaped(id)
            )
            .into_bytes(),
        ),
        Protocol::RestXml if error.service == "s3" => (
            "application/xml",
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{}</Message>{}\
                 <RequestId>{}</RequestId><HostId>chaperone</HostId></Error>",
                escaped(message),
                error.kind.times(),
                escaped(id)
            )
            .into_bytes(),
        ),
        Protocol::Query | Protocol::RestXml => (
            "text/xml",
            format!(
                "<ErrorResponse><Error><Type>{}</Type><Code>{code}</Code><Message>{}</Message></Error>\
                 <RequestId>{}</RequestId></ErrorResponse>",
                if error.kind == ErrorKind::Unavailable { "Receiver" } else { "Sender" },
                escaped(message),
                escaped(id)
            )
            .into_bytes(),
        ),
    };
    let body = if method == Method::HEAD { Bytes::new() } else { Bytes::from(body) };
    let mut response = Response::new(body);
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-amzn-requestid", id.clone());
        if error.protocol == Protocol::RestXml {
            headers.insert("x-amz-request-id", id);
        }
    }
    match error.protocol {
        Protocol::Json | Protocol::RestJson => {
            headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
        }
        Protocol::RpcV2Cbor => {
            headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
        }
        _ => {}
    }
    if let ErrorKind::Skewed { now, .. } = error.kind
        && let Some(date) = http_date(now)
    {
        headers.insert(DATE, date);
    }
    if error.kind == ErrorKind::Unavailable {
        headers.insert("retry-after", HeaderValue::from_static("1"));
    }
    response
}

/// An error as the Kubernetes API has it, which its clients show.
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieve-errors>
fn kubernetes_status(error: &AwsError<'_>) -> Vec<u8> {
    let reason = match error.kind {
        ErrorKind::AccessDenied => "Forbidden",
        ErrorKind::InvalidRequest => "BadRequest",
        // A client with a token that isn't taken gets itself another one.
        ErrorKind::InvalidSignature | ErrorKind::Skewed { .. } => "Unauthorized",
        ErrorKind::Throttled => "TooManyRequests",
        ErrorKind::Unavailable => "ServiceUnavailable",
    };
    let (message, code) = (error.message, error.status().as_u16());
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
    .to_string()
    .into_bytes()
}

fn json(code: &str, message: &str) -> Vec<u8> {
    // Services spell it `message` or `Message`; SDKs read both.
    serde_json::json!({ "__type": code, "message": message, "Message": message }).to_string().into_bytes()
}

fn cbor(members: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0xa0 | u8::try_from(members.len()).unwrap_or(0)];
    let mut text = |text: &str| {
        let length = u32::try_from(text.len()).unwrap_or(0);
        out.push(0x7a);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&text.as_bytes()[..length as usize]);
    };
    for (name, value) in members {
        text(name);
        text(value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(protocol: Protocol, service: &str, kind: ErrorKind) -> (u16, String, Response<Bytes>) {
        let error = AwsError { protocol, service, kind, message: "agent <x> & \"y\"", request_id: "id-1" };
        let response = error_response(&error, &Method::POST);
        (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned(), response)
    }

    #[test]
    fn every_protocol_has_its_own_shape() {
        let (status, body, head) = answer(Protocol::Json, "dynamodb", ErrorKind::AccessDenied);
        assert_eq!(status, 403);
        assert_eq!(head.headers()["x-amzn-errortype"], "AccessDeniedException");
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(parsed["__type"], "AccessDeniedException");
        assert_eq!(parsed["message"], "agent <x> & \"y\"");

        let (_, body, _) = answer(Protocol::Ec2, "ec2", ErrorKind::AccessDenied);
        assert!(body.contains("<Code>UnauthorizedOperation</Code><Message>agent &lt;x&gt; &amp; &quot;y&quot;<"));
        let (_, body, _) = answer(Protocol::Query, "sts", ErrorKind::AccessDenied);
        assert!(body.starts_with("<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"), "{body}");
        let (status, body, head) = answer(Protocol::RestXml, "s3", ErrorKind::Unavailable);
        assert!(status == 503 && body.contains("<Error><Code>SlowDown</Code>"));
        assert_eq!(head.headers()["x-amz-request-id"], "id-1");
        let (_, body, _) = answer(Protocol::RestXml, "route53", ErrorKind::AccessDenied);
        assert!(body.starts_with("<ErrorResponse>"));
        let (_, _, head) = answer(Protocol::RpcV2Cbor, "cloudwatch", ErrorKind::AccessDenied);
        assert_eq!(head.headers()["smithy-protocol"], "rpc-v2-cbor");
        let read: ciborium::Value = ciborium::from_reader(&head.body()[..]).unwrap();
        assert_eq!(read.as_map().unwrap()[0].1.as_text(), Some("AccessDeniedException"));
    }

    /// Each SDK knows that its clock is wrong by the code or the words, and what time it is by the date.
    #[test]
    fn a_wrong_clock_is_told_as_aws_does_it() {
        let kind = ErrorKind::Skewed {
            signed: time::macros::datetime!(2025-06-01 10:00:00 UTC),
            now: time::macros::datetime!(2025-06-01 12:00:07 UTC),
        };
        for (protocol, service, status, code) in [
            (Protocol::RestXml, "s3", 403, "RequestTimeTooSkewed"),
            (Protocol::RestXml, "route53", 403, "SignatureDoesNotMatch"),
            (Protocol::Query, "sts", 403, "SignatureDoesNotMatch"),
            (Protocol::Ec2, "ec2", 400, "RequestExpired"),
            (Protocol::Json, "dynamodb", 403, "InvalidSignatureException"),
            (Protocol::RestJson, "lambda", 403, "InvalidSignatureException"),
        ] {
            let (seen, body, head) = answer(protocol, service, kind);
            assert_eq!(seen, status, "{service}");
            assert!(body.contains(code), "{service}: {body}");
            assert_eq!(head.headers()["date"], "Sun, 01 Jun 2025 12:00:07 GMT");
        }
        let (_, body, _) = answer(Protocol::RestXml, "s3", kind);
        assert!(
            body.contains(
                "<RequestTime>2025-06-01T10:00:00Z</RequestTime><ServerTime>2025-06-01T12:00:07Z</ServerTime>\
                 <MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>"
            ),
            "{body}"
        );
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let error = AwsError {
            protocol: Protocol::RestXml,
            service: "s3",
            kind: ErrorKind::AccessDenied,
            message: "no",
            request_id: "id",
        };
        assert!(error_response(&error, &Method::HEAD).body().is_empty());
    }
}
