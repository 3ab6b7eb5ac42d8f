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
mod over_budget;
pub mod received;
pub mod recorded;
pub(crate) mod redact;
pub(crate) mod rescue;
pub mod signed;
pub(crate) mod unmasked;
pub(crate) mod work;

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

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
    let connection = exchange.connection.clone();
    let authorized = {
        let deciding =
            pin!(async { Received::parse(head, exchange)?.authenticate().await?.decode().await?.authorize().await });
        unless_stopped(&connection, deciding).await?
    };
    // The record is made whole or not at all.
    let recorded = authorized.record().await?;
    let sending = pin!(async { recorded.sign().await?.forward().await });
    unless_stopped(&connection, sending).await
}

/// Whatever a call is doing, it ends when its session is stopped.
async fn unless_stopped<T>(
    connection: &HttpConnection,
    doing: Pin<&mut (impl Future<Output = Result<T, CallError>> + Send)>,
) -> Result<T, CallError> {
    tokio::select! {
        biased;
        stop = connection.plane.stops.stopped(&connection.session.session) => Err(CallError::Stopped(stop.refusal())),
        done = doing => done,
    }
}
