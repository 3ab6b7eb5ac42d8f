//! One request and its answer, as stages that each consume the one before: a request that is undecided, unrecorded or
//! unsigned can't be forwarded, because no such function exists.

pub mod authenticated;
pub mod authorized;
pub mod decoded;
pub mod error;
pub mod exchange;
pub mod forwarded;
pub(crate) mod outcome;
pub mod received;
pub mod recorded;
pub(crate) mod redact;
pub(crate) mod rescue;
pub mod signed;
pub(crate) mod work;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::{
    body::answer::AnswerBody,
    call::{
        error::CallError,
        exchange::{Exchange, RequestHead},
        forwarded::Answer,
        received::Received,
    },
    connection::http_connection::HttpConnection,
};

/// Answers one request. Every request is recorded and answered, whatever happens.
pub(crate) async fn answer(connection: Arc<HttpConnection>, request: Request<Incoming>) -> Response<AnswerBody> {
    connection.plane.metrics.requests.inc();
    let (mut exchange, head) = Exchange::begin(connection, request);
    match carry_out(head, &mut exchange).await {
        Ok(answer) => answer.deliver(exchange).await,
        Err(error) => Box::pin(rescue::rescue(exchange, error)).await,
    }
}

async fn carry_out(head: RequestHead, exchange: &mut Exchange) -> Result<Answer, CallError> {
    Received::parse(head, exchange)?
        .authenticate()
        .await?
        .decode()
        .await?
        .authorize()?
        .record()
        .await?
        .sign()
        .await?
        .forward()
        .await
}
