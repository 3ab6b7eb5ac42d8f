//! Signatures of webhooks, as Standard Webhooks has them: HMAC-SHA256 over id, time and body.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// What a webhook's messages are signed by.
pub struct SigningKey(hmac::Key);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(<redacted>)")
    }
}

impl SigningKey {
    /// From `whsec_` and 24 to 64 bytes in base64.
    pub fn read(secret: &str) -> Result<Self, String> {
        let wrong =
            "the secret must be `whsec_` and 24 to 64 bytes in base64: echo whsec_$(head -c 32 /dev/urandom | base64)";
        let bytes = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| (24..=64).contains(&bytes.len())).ok_or(wrong)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The field `webhook-signature`, for a message of this id and body at this time, in seconds.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut signed = hmac::Context::with_key(&self.0);
        signed.update(format!("{id}.{seconds}.").as_bytes());
        signed.update(body);
        format!("v1,{}", STANDARD.encode(signed.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of Standard Webhooks' own libraries (`libraries/python/tests/test_webhooks.py`, `test_sign_function`).
    #[test]
    fn the_published_vector() {
        let key = SigningKey::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn weak_or_misspelled_secrets_are_refused() {
        for secret in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_%%%"] {
            let error = SigningKey::read(secret).unwrap_err();
            assert!(error.contains("whsec_"), "{error}");
            assert!(
                secret.is_empty() || !error.contains(&secret[6.min(secret.len())..]) || secret.len() <= 6,
                "{error}"
            );
        }
    }
}
