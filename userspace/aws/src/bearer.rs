//! Bearer tokens, as Bedrock's API keys are: the session's own token, sent as one, stands for the session's authority, and
//! the request goes on signed.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderValue, header::AUTHORIZATION, request::Parts};
use time::OffsetDateTime;

use crate::{
    Catalog, Endpoint, HostKind, HostMatch, Placeholder, TokenField,
    endpoint::models::{API_KEY, bearer_of_api_key, is_for_runtime},
    sign::format_date,
};

/// A key in `x-api-key`, where Anthropic's SDK puts it, becomes the bearer token that it is, at the hosts where AWS takes it
/// so.
pub fn take_api_key(parts: &mut Parts, host: &HostMatch) {
    if parts.headers.contains_key(API_KEY)
        && (host.kind == HostKind::Endpoint(Endpoint::Mantle) || is_for_runtime(host, parts))
    {
        bearer_of_api_key(parts);
    }
}

/// Whether the request carries this placeholder's token as its bearer token. It then becomes a header-signed request whose
/// `Authorization` field stands in for ours: it is not one that AWS would take. `region` is for hosts that name none.
pub fn take_bearer(parts: &mut Parts, host: &HostMatch, region: &str, own: &Placeholder, now: OffsetDateTime) -> bool {
    let mut fields = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let Some((scheme, token)) = field.to_str().ok().and_then(|text| text.split_once(' ')) else { return false };
    let ours = verify_slices_are_equal(token.as_bytes(), own.session_token().as_bytes()).is_ok();
    if !scheme.eq_ignore_ascii_case("bearer") || !ours || own.token_field() != TokenField::Security {
        return false;
    }
    let names = &Catalog::global().names;
    let own_names: &[&'static str] = match &host.kind {
        HostKind::Endpoint(endpoint @ Endpoint::Mantle) => endpoint.signing_names(),
        _ => &[],
    };
    let of_services = host.services.iter().filter_map(|&at| names[usize::from(at)].signing.first().copied());
    let mut signing = own_names.iter().copied().chain(of_services);
    let Some(service) = signing.next() else { return false };
    // A name that stands for several is no name of a service that takes bearer tokens.
    if signing.any(|other| other != service) {
        return false;
    }
    let region = host.region.as_deref().unwrap_or(region);
    let stub = format!(
        "AWS4-HMAC-SHA256 Credential={}/{}/{region}/{service}/aws4_request, SignedHeaders=host, Signature={}",
        own.access_key_id(),
        &format_date(now)[..8],
        "0".repeat(64)
    );
    let Ok(stub) = HeaderValue::from_str(&stub) else { return false };
    parts.headers.insert(AUTHORIZATION, stub);
    true
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use http::Request;
    use time::macros::datetime;

    use super::*;
    use crate::{AwsCredentials, RequestAuth, Scope, Signer};

    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);
    const BEDROCK: &str = "bedrock-runtime.eu-west-1.amazonaws.com";

    fn own() -> Placeholder {
        Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "secret", "chaperone/x/token")
    }

    fn taken(host: &str, fields: &[&str]) -> Option<Parts> {
        let mut request = Request::builder().method("POST").uri("/model/a%3A0/invoke").header("host", host);
        for field in fields {
            request = request.header(AUTHORIZATION, *field);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let host = Catalog::global().host(host).unwrap();
        take_bearer(&mut parts, &host, "us-east-1", &own(), NOW).then_some(parts)
    }

    #[test]
    fn the_sessions_token_becomes_a_signature() {
        let mut parts = taken(BEDROCK, &["Bearer chaperone/x/token"]).unwrap();
        let host = Catalog::global().host(BEDROCK).unwrap();
        let authority = RequestAuth::of(&parts);
        let RequestAuth::Header(header) = &authority else { panic!("{authority:?}") };
        let scope = Scope::of(header);
        assert_eq!((scope.region.as_str(), scope.service.as_str()), ("eu-west-1", "bedrock"));
        let call = Catalog::global().decode(&host, &parts, Some(b"{}"), &authority, None).unwrap();
        assert_eq!(call.operation, "InvokeModel");
        let real = AwsCredentials::new(Credentials::new("AKIAREAL", "real", None, None, "test"));
        Signer::new().sign(&mut parts, Some(&[0; 32]), &real, &scope, NOW).unwrap();
        let field = parts.headers[AUTHORIZATION].to_str().unwrap();
        assert!(field.contains("Credential=AKIAREAL/20250601/eu-west-1/bedrock/") && !field.contains("chaperone"));
    }

    #[test]
    fn a_key_of_anthropics_sdk_is_a_bearer_token_where_aws_takes_it() {
        let parts = |path: &str| {
            let request = Request::post(path).header("x-api-key", "chaperone/x/token").body(()).unwrap();
            request.into_parts().0
        };
        for (host, path, taken) in [
            ("bedrock-mantle.eu-west-1.api.aws", "/anthropic/v1/messages", true),
            (BEDROCK, "/anthropic/v1/messages", true),
            (BEDROCK, "/model/m/invoke", false),
            ("a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com", "/s/x", false),
        ] {
            let mut parts = parts(path);
            let found = Catalog::global().host(host).unwrap();
            take_api_key(&mut parts, &found);
            assert_eq!(parts.headers.contains_key("x-api-key"), !taken, "{host}");
            assert_eq!(take_bearer(&mut parts, &found, "eu-west-1", &own(), NOW), taken, "{host}");
        }
    }

    #[test]
    fn another_token_is_left_to_be_refused() {
        let good = "Bearer chaperone/x/token";
        for fields in
            [&["Bearer chaperone/x/tokem"][..], &["Bearer "], &["Basic chaperone/x/token"], &[good, good], &[]]
        {
            assert!(taken(BEDROCK, fields).is_none(), "{fields:?}");
        }
        assert!(taken("123456789012.dkr.ecr.eu-west-1.amazonaws.com", &[good]).is_none());
    }
}
