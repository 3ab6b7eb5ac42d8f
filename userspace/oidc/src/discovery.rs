//! A provider's discovery document: where it does what, by its own word.

use http::Uri;
use oauth2::{AuthUrl, DeviceAuthorizationUrl, TokenUrl};
use serde_json::Value;

use crate::{Fetch, Issuer, ProviderError, exchange::cut};

/// The document of an issuer, and of no other.
pub(crate) struct Document<'a> {
    issuer: &'a Issuer,
    uri: Uri,
    members: Value,
}

impl<'a> Document<'a> {
    /// Asks for it.
    pub(crate) async fn of(issuer: &'a Issuer, fetch: &Fetch) -> Result<Self, ProviderError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
        let asked = issuer.url("issuer", &url).map_err(|why| ProviderError::Ask { url: url.clone(), why })?;
        let document = Self { issuer, members: fetch.json(&asked).await?, uri: asked };
        let found = document.text("issuer").unwrap_or_default();
        if found != issuer.issuer {
            let (found, wanted) = (cut(found), issuer.issuer.clone());
            return Err(ProviderError::OtherIssuer { url, found, wanted });
        }
        Ok(document)
    }

    /// Where it was.
    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// A text in it.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    /// An address in it, if there is one.
    pub(crate) fn endpoint(&self, name: &str) -> Result<Option<Uri>, ProviderError> {
        let url = |at| self.issuer.url(name, at).map_err(|why| self.wrong(why));
        self.text(name).map(url).transpose()
    }

    /// An address that must be in it.
    pub(crate) fn needed(&self, name: &str) -> Result<Uri, ProviderError> {
        self.endpoint(name)?.ok_or_else(|| self.wrong(format!("it names no `{name}`")))
    }

    pub(crate) fn authorization(&self) -> Result<AuthUrl, ProviderError> {
        self.parsed("authorization_endpoint", AuthUrl::new)
    }

    pub(crate) fn device(&self) -> Result<DeviceAuthorizationUrl, ProviderError> {
        self.parsed("device_authorization_endpoint", DeviceAuthorizationUrl::new)
    }

    pub(crate) fn token(&self) -> Result<TokenUrl, ProviderError> {
        self.parsed("token_endpoint", TokenUrl::new)
    }

    fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(String) -> Result<T, oauth2::url::ParseError>,
    ) -> Result<T, ProviderError> {
        parse(self.needed(name)?.to_string()).map_err(|error| self.wrong(format!("{name}: {error}")))
    }

    /// That something is wrong with it.
    pub(crate) fn wrong(&self, why: String) -> ProviderError {
        ProviderError::Ask { url: self.uri.to_string(), why }
    }
}
