//! Authorization tokens: ECR's and CodeArtifact's, both of them in JSON.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{AnswerError, CredentialRewriter};
use crate::tokens::TokenKind;

pub(super) fn rewrite(body: &[u8], issuer: &CredentialRewriter<'_>, kind: TokenKind) -> Result<Vec<u8>, AnswerError> {
    let mut value: Value = serde_json::from_slice(body).map_err(|_| AnswerError::Unreadable("JSON"))?;
    walk(&mut value, issuer, kind)?;
    serde_json::to_vec(&value).map_err(|_| AnswerError::Unreadable("JSON"))
}

fn walk(value: &mut Value, issuer: &CredentialRewriter<'_>, kind: TokenKind) -> Result<(), AnswerError> {
    match value {
        Value::Array(elements) => elements.iter_mut().try_for_each(|element| walk(element, issuer, kind)),
        Value::Object(members) => {
            // Seconds since 1970, in both.
            let ends = members.get("expiresAt").or_else(|| members.get("expiration")).and_then(Value::as_f64);
            let expiry = ends
                .and_then(|ends| Duration::try_from_secs_f64(ends).ok())
                .and_then(|ends| SystemTime::UNIX_EPOCH.checked_add(ends));
            for (name, value) in members.iter_mut() {
                match value {
                    Value::String(token) if name.eq_ignore_ascii_case("authorizationToken") => {
                        let given = issuer.keys.tokens().issue(kind, token, expiry);
                        *token = given.ok_or(AnswerError::Unreadable("a token of its service"))?;
                    }
                    Value::Null => {}
                    _ if name.eq_ignore_ascii_case("authorizationToken") => return Err(AnswerError::Partial),
                    value => walk(value, issuer, kind)?,
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use chaperone_model::SessionId;
    use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

    use super::*;
    use crate::{VendedCredentials, answers::VendingCall};

    fn rewritten(kind: TokenKind, body: &str) -> Result<Value, AnswerError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        let call = VendingCall { express: false, same_account: false, token: Some(kind) };
        let keys = VendedCredentials::default();
        let issuer =
            CredentialRewriter { keys: &keys, session: SessionId::from_bytes([1; 16]), account: None, call: &call };
        issuer.rewrite(&headers, body.as_bytes()).map(|body| serde_json::from_slice(&body).unwrap())
    }

    // Shaped as the examples in the API references of ECR and CodeArtifact.
    #[test]
    fn tokens_are_replaced_and_the_rest_stays() {
        let token = BASE64_STANDARD.encode("AWS:secret");
        let body = format!(
            r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":1470951892432E-3,"proxyEndpoint":"https://012345678910.dkr.ecr.us-east-1.amazonaws.com"}}]}}"#
        );
        let answer = rewritten(TokenKind::Registry, &body).unwrap();
        let entry = &answer["authorizationData"][0];
        assert_eq!(entry["proxyEndpoint"], "https://012345678910.dkr.ecr.us-east-1.amazonaws.com");
        let given = BASE64_STANDARD.decode(entry["authorizationToken"].as_str().unwrap()).unwrap();
        assert!(given.starts_with(b"AWS:chaperone-"), "{answer}");

        let body = r#"{"authorizationToken":"eyJ2ZXI.real","expiration":1.6E9}"#;
        let answer = rewritten(TokenKind::Packages, body).unwrap();
        assert!(answer["authorizationToken"].as_str().unwrap().starts_with("chaperone-"), "{answer}");
        assert_eq!(answer["expiration"], 1.6E9);
    }

    #[test]
    fn what_is_no_token_goes_nowhere() {
        for (kind, body) in [
            (TokenKind::Registry, r#"{"authorizationData":[{"authorizationToken":"no base64"}]}"#),
            (TokenKind::Registry, r#"{"authorizationData":[{"authorizationToken":["x"]}]}"#),
            (TokenKind::Packages, r#"{"authorizationToken":{"a":"b"}}"#),
            (TokenKind::Packages, "authorizationToken"),
        ] {
            assert!(rewritten(kind, body).is_err(), "{body}");
        }
    }
}
