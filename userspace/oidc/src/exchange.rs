//! What every exchange of something for tokens has in common.

use std::{future::Future, io, pin::Pin};

use oauth2::{
    ClientId, EmptyExtraTokenFields, EndpointNotSet, EndpointSet, ErrorResponse, ExtraTokenFields, HttpRequest,
    HttpResponse, RequestTokenError, StandardRevocableToken, StandardTokenResponse, TokenUrl,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenType},
};
use serde::{Deserialize, Serialize};

use crate::{Fetch, fetch::PATIENCE};

/// The part of a token's answer that OpenID Connect adds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IdToken {
    pub(crate) id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

/// What is answered where tokens are given out.
pub(crate) type Tokens = StandardTokenResponse<IdToken, BasicTokenType>;

/// A client whose token endpoint is known, and perhaps the one where browsers are sent.
pub(crate) type Client<Authorization = EndpointNotSet> = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    oauth2::StandardTokenIntrospectionResponse<EmptyExtraTokenFields, BasicTokenType>,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    Authorization,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// The client of that name.
pub(crate) fn client(id: ClientId, token: TokenUrl) -> Client {
    oauth2::Client::new(id).set_token_uri(token)
}

type Sent = Pin<Box<dyn Future<Output = Result<HttpResponse, io::Error>> + Send>>;

/// How requests of the crate `oauth2` are sent.
pub(crate) fn sender(fetch: &Fetch) -> impl Fn(HttpRequest) -> Sent + Send + Sync + use<> {
    let fetch = fetch.clone();
    move |request| {
        let fetch = fetch.clone();
        Box::pin(async move {
            let answer = fetch.send(request.map(Into::into), PATIENCE).await.map_err(io::Error::other)?;
            let mut response = http::Response::new(answer.body.to_vec());
            (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
            Ok(response)
        })
    }
}

/// What came of a request that failed, in words.
pub(crate) fn said<E, R>(error: &RequestTokenError<E, R>) -> String
where
    E: std::error::Error + 'static,
    R: ErrorResponse + std::fmt::Display,
{
    match error {
        RequestTokenError::ServerResponse(said) => said.to_string(),
        // What it answered may hold tokens.
        RequestTokenError::Parse(error, _) => format!("its answer can't be read: {error}"),
        RequestTokenError::Request(error) => chaperone_model::with_causes(error),
        RequestTokenError::Other(why) => why.clone(),
    }
}

/// As much of what a provider says as can be shown.
pub(crate) fn cut(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(256).collect()
}
