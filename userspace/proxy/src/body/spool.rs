//! Request bodies that must be in memory before they can be signed or decoded.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chaperone_model::{OutcomeStatus, Reason};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    body::error::BodyError,
    call::{
        error::{Kind, Refusal},
        exchange::RequestBody,
    },
    data_plane::DataPlane,
};

/// Reads a body into memory, within the bounds for one and for all. Comes back with what there is of it, if that fails.
pub(crate) async fn spool(
    plane: &Arc<DataPlane>,
    parts: &Parts,
    mut body: Incoming,
) -> Result<(Bytes, OwnedSemaphorePermit), (Refusal, Option<RequestBody>)> {
    let limit = plane.limits.spool_bytes;
    let too_large = || {
        let why =
            format!("the body is larger than {limit} bytes, which must be held to be signed (limits.spool_bytes)");
        Refusal::denied(Kind::TooLarge, Reason::NotSupported, why)
    };
    let announced = body.size_hint().exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if announced.is_some_and(|size| size > limit) {
        return Err((too_large(), Some(RequestBody::Streaming(body))));
    }
    // Without an announced length, the most that it can become is set aside.
    let permit = match reserve(plane, announced.unwrap_or(limit) as u64).await {
        Ok(permit) => permit,
        Err(refusal) => return Err((refusal, Some(RequestBody::Streaming(body)))),
    };
    if body.is_end_stream() {
        return Ok((Bytes::new(), permit));
    }
    let broken = |why: String| Refusal {
        kind: Kind::BadRequest,
        reason: Reason::Undecodable,
        message: format!("the body of {} {} broke off: {why}", parts.method, parts.uri.path()),
        outcome: OutcomeStatus::Aborted,
    };
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    let failed = loop {
        let frame = match timeout(plane.limits.body_timeout, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break None,
            Ok(Some(Err(error))) => break Some(broken(BodyError::http(&error).to_string())),
            Err(_) => {
                break Some(broken(format!("no byte came for {} s", plane.limits.body_timeout.as_secs())));
            }
        };
        let Ok(bytes) = frame.into_data() else { continue };
        if more.len() + first.as_ref().map_or(0, Bytes::len) + bytes.len() > limit {
            break Some(too_large());
        }
        match &mut first {
            None if more.is_empty() => first = Some(bytes),
            None => more.extend_from_slice(&bytes),
            Some(one) => {
                more.reserve(announced.unwrap_or(0).max(one.len() + bytes.len()));
                more.extend_from_slice(one);
                more.extend_from_slice(&bytes);
                first = None;
            }
        }
    };
    let bytes = first.unwrap_or_else(|| more.freeze());
    match failed {
        None => Ok((bytes, permit)),
        Some(refusal) => Err((refusal, Some(RequestBody::in_memory(bytes, permit)))),
    }
}

/// Waits for so many bytes of the memory that all agents' requests share.
pub(crate) async fn reserve(plane: &DataPlane, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
    let permits = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
    timeout(plane.limits.body_timeout, plane.spool.clone().acquire_many_owned(permits))
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Refusal {
            kind: Kind::Unavailable,
            reason: Reason::NotSupported,
            message: "too many large requests are waiting to be signed (limits.spool_total_bytes): try again".into(),
            outcome: OutcomeStatus::Failed,
        })
}
