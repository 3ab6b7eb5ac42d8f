//! One request and its answer, as stages that each consume the one before: a request that is undecided, unrecorded or
//! unsigned can't be forwarded, because no such function exists.
//!
//! ```
//! # use chaperone_proxy::call::{error::CallError, forwarded::Answer, received::Received};
//! async fn carry_out(received: Received<'_>) -> Result<Answer, CallError> {
//!     let decoded = received.authenticate().await?.decode().await?;
//!     decoded.authorize().await?.record().await?.sign().await?.forward().await
//! }
//! ```
//!
//! Each of these leaves one stage out, and doesn't compile. Recorded without a ruling:
//!
//! ```compile_fail,E0599
//! # use chaperone_proxy::call::{error::CallError, forwarded::Answer, received::Received};
//! async fn carry_out(received: Received<'_>) -> Result<Answer, CallError> {
//!     let decoded = received.authenticate().await?.decode().await?;
//!     decoded.record().await?.sign().await?.forward().await
//! }
//! ```
//!
//! Signed without a record:
//!
//! ```compile_fail,E0599
//! # use chaperone_proxy::call::{error::CallError, forwarded::Answer, received::Received};
//! async fn carry_out(received: Received<'_>) -> Result<Answer, CallError> {
//!     let decoded = received.authenticate().await?.decode().await?;
//!     decoded.authorize().await?.sign().await?.forward().await
//! }
//! ```
//!
//! Forwarded without a permit:
//!
//! ```compile_fail,E0599
//! # use chaperone_proxy::call::{error::CallError, forwarded::Answer, received::Received};
//! async fn carry_out(received: Received<'_>) -> Result<Answer, CallError> {
//!     let decoded = received.authenticate().await?.decode().await?;
//!     decoded.forward().await
//! }
//! ```

mod approval;
pub mod authenticated;
pub mod authorized;
pub mod decoded;
pub mod error;
pub mod exchange;
pub mod forwarded;
pub mod http_path;
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
        .authorize()
        .await?
        .record()
        .await?
        .sign()
        .await?
        .forward()
        .await
}
