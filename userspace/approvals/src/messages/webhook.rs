//! A webhook: each message is posted, signed, and delivered once the receiver answers with success.

use std::time::Duration;

use bytes::Bytes;
use chaperone_oidc::Fetch;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, Uri, header};
use time::OffsetDateTime;

use super::{Failure, Message, Receiver, signature::SigningKey};
use crate::WebhookSection;

/// One of `[[approvals.webhooks]]`.
#[derive(Debug)]
pub struct Webhook {
    section: WebhookSection,
    uri: Uri,
    key: SigningKey,
    fetch: Fetch,
}

impl Webhook {
    /// One for a configuration that was checked. Reads its files; the error begins with the key that it is about.
    pub fn new(section: WebhookSection) -> Result<Self, String> {
        let uri = section.uri()?;
        let secret = chaperone_oidc::secret(&section.secret_file).map_err(|why| format!("secret_file: {why}"))?;
        let key = SigningKey::read(&secret)
            .map_err(|why| format!("secret_file: {}: {why}", section.secret_file.display()))?;
        let fetch = Fetch::new(section.ca_file.as_deref())?;
        Ok(Self { section, uri, key, fetch })
    }

    async fn post(&self, message: &Message) -> Result<String, Failure> {
        let failure = |why: String| Failure { why, is_final: false, retry_after: None };
        let body = Bytes::from(message.body.clone());
        let seconds = OffsetDateTime::now_utc().unix_timestamp();
        let request = Request::post(&self.uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.heading.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", self.key.sign(&message.heading.id, seconds, &body))
            .body(body)
            .map_err(|error| failure(error.to_string()))?;
        let answer = self.fetch.send(request, Duration::from_secs(self.section.timeout)).await.map_err(failure)?;
        let status = answer.status;
        if status.is_success() {
            return Ok(status.to_string());
        }
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        // What it says beside the status is its own affair, and may be long.
        let why = if status.is_redirection() {
            format!("{status}: redirections aren't followed; set `url` to where it is")
        } else {
            status.to_string()
        };
        Err(Failure { why, is_final: status == StatusCode::GONE, retry_after })
    }
}

impl Receiver for Webhook {
    fn name(&self) -> &str {
        &self.section.name
    }

    fn wants(&self, kind: &str) -> bool {
        self.section.events.is_empty() || self.section.events.iter().any(|event| event == kind)
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(self.post(message))
    }
}
