//! By whose authority a request comes: what its `Authorization` field or its query says, before anything is checked.

use chaperone_model::Payload;
use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, AsHeaderName, HOST},
    request::Parts,
};

pub(crate) const X_AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// As many fields as a head may have: an object's metadata is a signed field each.
const MAX_SIGNED_HEADERS: usize = 200;
/// Names of S3's metadata have 2 KiB together, and each is said with `x-amz-meta-` before it.
const MAX_AUTHORIZATION: usize = 16 << 10;

/// By whose authority a request comes. All of it is the agent's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestAuth<'a> {
    /// `Authorization: Bearer …`.
    Bearer,
    /// `Authorization: AWS4-HMAC-SHA256 …`.
    Header(HeaderAuthority<'a>),
    /// `Authorization: AWS KEY:SIGNATURE`, Signature Version 2.
    HeaderV2 {
        /// The access key id.
        access_key_id: &'a str,
    },
    /// There is something, and it can't be read: what is wrong with it.
    Malformed(&'static str),
    /// Nothing at all.
    None,
    /// Another scheme, such as `Basic`.
    Other,
    /// A presigned query, Signature Version 4 or 4A.
    Presigned {
        /// The access key id, percent-decoded as far as its alphabet goes.
        access_key_id: &'a str,
    },
    /// A presigned query, Signature Version 2.
    PresignedV2 {
        /// The access key id.
        access_key_id: &'a str,
    },
    /// `Authorization: AWS4-ECDSA-P256-SHA256 …`: SigV4A.
    SigV4a {
        /// The access key id.
        access_key_id: &'a str,
    },
}

/// A SigV4 `Authorization` field, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderAuthority<'a> {
    /// The access key id.
    pub access_key_id: &'a str,
    /// The scope's date, `YYYYMMDD`.
    pub date: &'a str,
    /// The scope's region.
    pub region: &'a str,
    /// The scope's service: the signing name.
    pub service: &'a str,
    /// Names of the signed header fields: lower case, sorted, separated by `;`.
    pub signed_headers: &'a str,
    /// The signature.
    pub signature: [u8; 32],
}

impl<'a> RequestAuth<'a> {
    /// What the request says.
    pub fn of(parts: &'a Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let presigned = if query.is_empty() { None } else { presigned(query) };
        let mut fields = parts.headers.get_all(AUTHORIZATION).iter();
        match (fields.next(), fields.next(), presigned) {
            (_, Some(_), _) => Self::Malformed("more than one Authorization field"),
            (Some(_), None, Some(_)) => Self::Malformed("both an Authorization field and a presigned query"),
            (None, None, Some(presigned)) => presigned,
            (None, None, None) => Self::None,
            (Some(field), None, None) => match field.to_str() {
                Ok(text) if text.len() <= MAX_AUTHORIZATION => header(text),
                _ => Self::Malformed("an Authorization field that is too long or not ASCII"),
            },
        }
    }

    /// Whether the head says SigV4, without reading what.
    pub fn is_in_head(parts: &Parts) -> bool {
        let field = parts.headers.get(AUTHORIZATION);
        field.is_some_and(|field| field.as_bytes().starts_with(b"AWS4-HMAC-SHA256 "))
    }

    /// The access key id that it names, if it is of a kind that has one.
    pub fn access_key_id(&self) -> Option<&'a str> {
        match self {
            Self::Header(header) => Some(header.access_key_id),
            Self::HeaderV2 { access_key_id }
            | Self::Presigned { access_key_id }
            | Self::PresignedV2 { access_key_id }
            | Self::SigV4a { access_key_id } => Some(access_key_id),
            Self::Bearer | Self::Malformed(_) | Self::None | Self::Other => None,
        }
    }

    /// What to call it in a sentence.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Bearer => "a bearer token",
            Self::Header(_) => "a SigV4 signature",
            Self::HeaderV2 { .. } => "a Signature Version 2 header",
            Self::Malformed(_) => "an authorization that can't be read",
            Self::None => "no authorization",
            Self::Other => "an authorization scheme that AWS has not",
            Self::Presigned { .. } => "a presigned query",
            Self::PresignedV2 { .. } => "a presigned query of Signature Version 2",
            Self::SigV4a { .. } => "a SigV4A signature",
        }
    }
}

/// Query parameters that say the request is presigned; their names are matched as S3 does, after decoding.
fn presigned(query: &str) -> Option<RequestAuth<'_>> {
    let mut v2 = None;
    let mut signature_v2 = false;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        if name.eq_ignore_ascii_case("x-amz-credential")
            || name.eq_ignore_ascii_case("x-amz-signature")
            || name.eq_ignore_ascii_case("x-amz-algorithm")
        {
            let id = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| name.eq_ignore_ascii_case("x-amz-credential"))
                .map_or("", |(_, value)| value.split(['/', '%']).next().unwrap_or_default());
            return Some(RequestAuth::Presigned { access_key_id: id });
        }
        if name == "AWSAccessKeyId" {
            v2 = Some(value);
        } else if name == "Signature" {
            signature_v2 = true;
        }
    }
    match v2 {
        Some(access_key_id) if signature_v2 => Some(RequestAuth::PresignedV2 { access_key_id }),
        _ => None,
    }
}

fn header(text: &str) -> RequestAuth<'_> {
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    match scheme {
        "AWS4-HMAC-SHA256" => match fields(rest) {
            Ok(header) => RequestAuth::Header(header),
            Err(problem) => RequestAuth::Malformed(problem),
        },
        "AWS4-ECDSA-P256-SHA256" => {
            let id = rest.split("Credential=").nth(1).and_then(|c| c.split(['/', ',']).next()).unwrap_or_default();
            RequestAuth::SigV4a { access_key_id: id }
        }
        "AWS" => RequestAuth::HeaderV2 { access_key_id: rest.split(':').next().unwrap_or_default().trim() },
        _ if scheme.eq_ignore_ascii_case("bearer") => RequestAuth::Bearer,
        _ => RequestAuth::Other,
    }
}

/// Credential, SignedHeaders and Signature of an `Authorization` field, after its algorithm; each at most once.
pub(crate) fn members(rest: &str) -> Result<[Option<&str>; 3], &'static str> {
    let mut found = [None; 3];
    for member in rest.split(',') {
        let (name, value) = member.trim().split_once('=').ok_or("a part of the Authorization field without `=`")?;
        let place = match name {
            "Credential" => 0,
            "SignedHeaders" => 1,
            "Signature" => 2,
            _ => return Err("an unknown part in the Authorization field"),
        };
        if found[place].replace(value).is_some() {
            return Err("a part of the Authorization field twice");
        }
    }
    Ok(found)
}

pub(crate) fn fields(rest: &str) -> Result<HeaderAuthority<'_>, &'static str> {
    let [credential, signed, signature] = members(rest)?;
    let mut scope = credential.ok_or("no Credential in the Authorization field")?.split('/');
    let mut next = || scope.next().filter(|part| !part.is_empty() && part.len() <= 128);
    let (id, date, region, service) =
        (|| Some((next()?, next()?, next()?, next()?)))().ok_or("a credential scope without all its parts")?;
    if next() != Some("aws4_request") || next().is_some() {
        return Err("a credential scope that does not end in aws4_request");
    }
    let token = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
    if ![id, date, region, service].iter().all(|part| token(part)) {
        return Err("a character in the credential scope that has no place there");
    }
    let signed_headers = signed.ok_or("no SignedHeaders in the Authorization field")?;
    check_names(signed_headers)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(signature.ok_or("no Signature in the Authorization field")?, &mut bytes)
        .map_err(|_| "a signature that is not 64 hexadecimal digits")?;
    Ok(HeaderAuthority { access_key_id: id, date, region, service, signed_headers, signature: bytes })
}

/// SignedHeaders: sorted, unique, few, in lower case.
pub(crate) fn check_names(signed_headers: &str) -> Result<(), &'static str> {
    let mut before = "";
    for (count, name) in signed_headers.split(';').enumerate() {
        if name.is_empty() || name <= before || count >= MAX_SIGNED_HEADERS {
            return Err("SignedHeaders that are not sorted, unique and few");
        }
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("SignedHeaders that are not in lower case");
        }
        before = name;
    }
    Ok(())
}

/// How the payload is signed, by what the request says. `None` only when nothing of the request is signed.
pub fn payload_shape(parts: &Parts) -> Payload {
    match single(&parts.headers, X_AMZ_CONTENT_SHA256) {
        Some("UNSIGNED-PAYLOAD") => Payload::Unsigned,
        Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => Payload::StreamingUnsignedTrailer,
        Some("STREAMING-AWS4-HMAC-SHA256-EVENTS") => Payload::EventStream,
        Some(text) if text.starts_with("STREAMING-") && text.ends_with("-TRAILER") => Payload::StreamingSignedTrailer,
        Some(text) if text.starts_with("STREAMING-") => Payload::StreamingSigned,
        Some(_) => Payload::DeclaredHash,
        None if parts.headers.contains_key(AUTHORIZATION) => Payload::ImpliedHash,
        None => Payload::None,
    }
}

/// The value of a field that may be there once. A name that is a [`HeaderName`] needn't be parsed.
pub(crate) fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The host that the request is for, as it is signed: the Host field, or HTTP/2's `:authority`.
pub(crate) fn host_field(parts: &Parts) -> Option<&str> {
    single(&parts.headers, HOST)
        .or_else(|| if parts.headers.contains_key(HOST) { None } else { Some(parts.uri.authority()?.as_str()) })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const SIGNATURE: &str = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";

    fn parts(target: &str, authorization: &[&str]) -> Parts {
        let mut request = Request::builder().uri(target);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn header_of(text: &str) -> String {
        match RequestAuth::of(&parts("/", &[text])) {
            RequestAuth::Header(header) => format!("{} {} {}", header.access_key_id, header.region, header.service),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_sigv4_header_is_taken_apart() {
        let text = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature={SIGNATURE}"
        );
        assert_eq!(header_of(&text), "AKIDEXAMPLE us-east-1 iam");
        assert_eq!(header_of(&text.replace(", ", ",")), "AKIDEXAMPLE us-east-1 iam");
    }

    #[test]
    fn hostile_headers_are_malformed() {
        let good = format!(
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/iam/aws4_request, SignedHeaders=host;x-amz-date, \
             Signature={SIGNATURE}"
        );
        assert!(header_of(&good).starts_with("AKID "));
        for bad in [
            good.replace("host;x", "x;host"),
            good.replace("host;x", "host;host;x"),
            good.replace("host", "Host"),
            good.replace("aws4_request", "aws4_reques"),
            good.replace("aws4_request", "aws4_request/x"),
            good.replace("/iam", ""),
            good.replace("AKID", "AK(ID"),
            good.replace("AKID", ""),
            good.replace("5d672d", "zz672d"),
            good.replace(&SIGNATURE[..2], ""),
            format!("{good}, Signature={SIGNATURE}"),
            format!("{good}, Extra=1"),
            format!("{good}{}", " ".repeat(17_000)),
            good.replace("us-east-1", &"r".repeat(200)),
        ] {
            assert!(header_of(&bad).starts_with("Malformed"), "{bad}");
        }
        assert!(matches!(RequestAuth::of(&parts("/", &[&good, &good])), RequestAuth::Malformed(_)));
        assert!(matches!(RequestAuth::of(&parts("/?X-Amz-Signature=00", &[&good])), RequestAuth::Malformed(_)));
    }

    #[test]
    fn other_authorities_are_named() {
        let of = |target: &str, authorization: &[&str]| format!("{:?}", RequestAuth::of(&parts(target, authorization)));
        assert_eq!(of("/", &[]), "None");
        assert_eq!(of("/", &["Bearer x"]), "Bearer");
        assert_eq!(of("/", &["Basic x"]), "Other");
        assert_eq!(of("/", &["AWS AKID:c2ln"]), "HeaderV2 { access_key_id: \"AKID\" }");
        assert_eq!(
            of("/?X-Amz-Credential=AKID%2F20150830%2Fus-east-1&X-Amz-Signature=0", &[]),
            "Presigned { access_key_id: \"AKID\" }"
        );
        assert_eq!(of("/?AWSAccessKeyId=AKID&Signature=x", &[]), "PresignedV2 { access_key_id: \"AKID\" }");
        assert_eq!(
            of("/", &["AWS4-ECDSA-P256-SHA256 Credential=AKID/20150830/s3/aws4_request, Signature=0"]),
            "SigV4a { access_key_id: \"AKID\" }"
        );
    }
}
