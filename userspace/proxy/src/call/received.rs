//! The first stage: a request with one host, one framing, and a known kind of destination.

use std::sync::Arc;

use chaperone_aws::{HostKind, HostMatch};
use chaperone_model::Reason;
use http::{header::UPGRADE, request::Parts};
use http_body::Body as _;

use crate::{
    call::{
        error::{CallError, Kind, Refusal},
        exchange::{Exchange, RequestBody, RequestHead},
    },
    connection::http_connection::HttpConnection,
    http::{heads::Refused, keep_alive::More, second, violation::Violation},
    websocket::frames::Handshake,
};

/// A request that can be read in one way, of an agent that is known.
pub struct Received<'e> {
    pub(super) exchange: &'e mut Exchange,
    pub(super) parts: Parts,
    pub(super) destination: Destination,
}

/// What a request is for.
pub(super) enum Destination {
    /// AWS's API.
    Aws { found: HostMatch, handshake: Option<Handshake> },
    /// A name that the configuration lists under `inspect`, or an application on AWS.
    Inspected,
}

impl<'e> Received<'e> {
    /// Reads the head.
    pub(crate) fn parse(head: RequestHead, exchange: &'e mut Exchange) -> Result<Self, CallError> {
        let connection = exchange.connection.clone();
        if let Some(error) = &connection.unrecorded {
            return Err(CallError::Unrecorded(error.clone()));
        }
        let RequestHead { parts, host, refused } = head;
        match refused {
            Some(Refused::Quota(exceeded)) => return Err(CallError::Throttled(exceeded)),
            Some(Refused::Violation(violation)) => {
                return Err(refused_by(&violation).into());
            }
            None => {}
        }
        second::check(&parts).map_err(|violation| refused_by(&violation))?;
        let host = host?;
        let destination = destination(&connection, exchange, &parts, &host)?;
        Ok(Self { exchange, parts, destination })
    }
}

fn refused_by(violation: &Violation) -> Refusal {
    let why = format!("the request was refused because of {violation}");
    Refusal::denied(Kind::BadRequest, Reason::Undecodable, why)
}

fn destination(
    connection: &Arc<HttpConnection>,
    exchange: &Exchange,
    parts: &Parts,
    host: &str,
) -> Result<Destination, Refusal> {
    let found = connection.plane.catalog.host(host);
    let application = matches!(&found, Some(HostMatch { kind: HostKind::Endpoint(endpoint), .. })
        if !parts.headers.contains_key(UPGRADE) && endpoint.is_application(parts));
    let inspected = application || exchange.generation.is_inspected(host);
    let handshake = match Handshake::of(parts) {
        None => None,
        Some(Ok(handshake))
            if !inspected
                && parts.extensions.get::<More>().is_none()
                && matches!(&exchange.body, Some(RequestBody::Streaming(body)) if body.is_end_stream()) =>
        {
            Some(handshake)
        }
        Some(refused) => {
            let other =
                "of upgrades, AWS's own WebSockets alone are passed on, and nothing that is sent before the answer";
            let why = format!("not permitted: {}", refused.err().unwrap_or(other));
            return Err(Refusal::denied(Kind::NotImplemented, Reason::NotSupported, why));
        }
    };
    if inspected {
        return Ok(Destination::Inspected);
    }
    let Some(found) = found else {
        let why = format!("`{host}` is not a name of AWS");
        return Err(Refusal::denied(Kind::Misdirected, Reason::Undecodable, why));
    };
    Ok(Destination::Aws { found, handshake })
}
