//! The third stage: what the request asks for.

use std::borrow::Cow;

use chaperone_aws::{DecodeError, RequestAuth, SignedHandshake};
use chaperone_model::{AccessLevel, Action, Call, Payload, Protocol, Reason};
use http::{Method, request::Parts};

use crate::{
    body::{
        cluster::ClusterInAnswer, presigned::PresignedAnswer, secrets::ScannedAnswer, transform::Transforms,
        vended::VendedAnswer,
    },
    call::{
        authenticated::{Authenticated, Authentication, Subject},
        error::{CallError, Kind, Refusal},
        exchange::{Exchange, RequestBody},
        http_path::normalize,
        work::Leave,
    },
};

/// The parameter that says which call's answer brought a presigned URL; no member of an operation's input is called so.
const LENT_BY: &str = "chaperone:LentBy";

/// A request whose operation, actions and resources are known. The call itself is in the exchange.
pub struct Decoded<'e> {
    pub(super) exchange: &'e mut Exchange,
    pub(super) parts: Parts,
    pub(super) subject: Subject,
    /// What its answer will go through.
    pub(super) transforms: Transforms,
}

impl<'e> Authenticated<'e> {
    /// Decodes it.
    pub async fn decode(self) -> Result<Decoded<'e>, CallError> {
        let Authenticated { exchange, parts, subject } = self;
        let mut transforms = Transforms::default();
        let Subject::Aws { found, identity, auth } = &subject else {
            // What policies see is what servers take the path for; what goes on is what the agent wrote.
            let path = normalize(parts.uri.path()).map_err(|error| {
                Refusal::denied(Kind::BadRequest, Reason::Undecodable, format!("not permitted: {error}"))
            })?;
            exchange.path = path.into_owned();
            exchange.call = Some(http_call(exchange, &parts));
            return Ok(Decoded { exchange, parts, subject, transforms });
        };
        let connection = exchange.connection.clone();
        let size = match &exchange.body {
            Some(RequestBody::Whole(bytes, ..)) => bytes.len(),
            _ => 0,
        };
        let turn = Leave::of(&connection.share, size).await;
        let mut call = turn
            .run(|| decode(exchange, &parts, found, identity, auth))
            .map_err(|error| Refusal::undecodable(&error))?;
        match auth {
            // Its key was for another service than its host's.
            Authentication::V4a { service, .. } if *service != call.signing_name => {
                exchange.call = Some(call);
                let why = "not permitted: the request is signed for another service than its host's";
                return Err(Refusal::denied(Kind::AccessDenied, Reason::Undecodable, why).into());
            }
            Authentication::Form { .. } => {
                call.operation = Cow::Borrowed("PostObject");
                call.payload = Payload::None;
            }
            Authentication::Grant { by } => {
                call.payload = Payload::None;
                if let serde_json::Value::Object(parameters) = &mut call.parameters {
                    parameters.insert(LENT_BY.to_owned(), by.clone().into());
                }
            }
            Authentication::Cluster { .. }
            | Authentication::FormV2 { .. }
            | Authentication::Git { .. }
            | Authentication::Token(_) => {
                call.payload = Payload::None;
            }
            _ => {}
        }
        let refused = if let Some(why) = identity.out_of_reach(&call) {
            let why = format!("{} is not permitted: {why}", call.operation);
            Some(Refusal::denied(Kind::AccessDenied, Reason::OutOfReach, why))
        } else if let Authentication::Anonymous = auth {
            let takes = exchange.connection.plane.catalog.takes_unsigned(found, &call);
            call.payload = if takes { Payload::None } else { call.payload };
            let what = RequestAuth::None.describe();
            (!takes).then(|| {
                Refusal::not_supported(format!(
                    "{} with {what} is not supported by this version of Chaperone",
                    call.operation
                ))
            })
        } else if matches!(exchange.body, Some(RequestBody::Whole(..))) && has_signed_chunks(call.payload) {
            Some(Refusal::not_supported(format!("{} with a body of signed chunks is not supported", call.operation)))
        } else {
            None
        };
        if let Some(refusal) = refused {
            exchange.call = Some(call);
            return Err(refusal.into());
        }
        let session = &exchange.connection.session;
        transforms.add(ScannedAnswer::for_sets(&call, &parts.method));
        transforms.add(VendedAnswer::of(&call, session));
        transforms.add(ClusterInAnswer::of(&call, &exchange.connection.plane));
        if !matches!(auth, Authentication::Grant { .. }) {
            transforms.add(PresignedAnswer::of(&call, found, exchange.id, session));
        }
        exchange.call = Some(call);
        Ok(Decoded { exchange, parts, subject, transforms })
    }
}

fn decode(
    exchange: &Exchange,
    parts: &Parts,
    found: &chaperone_aws::HostMatch,
    identity: &crate::SigningIdentity,
    auth: &Authentication,
) -> Result<Call, DecodeError> {
    let catalog = exchange.connection.plane.catalog;
    let by_key = !matches!(auth, Authentication::Anonymous | Authentication::Grant { .. } | Authentication::Token(_));
    let vended = auth.vended();
    let of_host = if vended.is_none() && by_key { identity.credentials.account() } else { None };
    let account = vended.map_or(of_host.as_deref(), |vended| vended.credentials().account());
    match auth {
        Authentication::Grant { .. } => catalog.decode(found, parts, None, &RequestAuth::None, None),
        // What is after the form's fields is the object, which is nothing to decide by.
        Authentication::Form { put, .. } => catalog.decode(found, put, None, &RequestAuth::of(put), account),
        _ => {
            let claimed = match auth {
                Authentication::SignedQuery { signed, .. } => SignedHandshake::authority(signed),
                _ => RequestAuth::of(parts),
            };
            let body = match (auth, &exchange.body) {
                // What signs it is no part of what is asked.
                (Authentication::FormV2 { form, .. }, _) => Some(form.rest()),
                (_, Some(RequestBody::Whole(bytes, ..))) => Some(&bytes[..]),
                _ => None,
            };
            let mut call = catalog.decode(found, parts, body, &claimed, account)?;
            let paths = exchange.generation.engine.parameter_paths();
            catalog.look_up(&mut call, found, parts, body, paths);
            Ok(call)
        }
    }
}

/// Whether each chunk is held until its signature is checked.
pub(super) fn has_signed_chunks(payload: Payload) -> bool {
    matches!(payload, Payload::StreamingSigned | Payload::StreamingSignedTrailer | Payload::EventStream)
}

/// A name that the configuration lists under `inspect`: decided by method, recorded whole, not signed.
fn http_call(exchange: &Exchange, parts: &Parts) -> Call {
    let level = match parts.method {
        Method::GET | Method::HEAD | Method::OPTIONS => AccessLevel::Read,
        _ => AccessLevel::Write,
    };
    Call {
        partition: Cow::Borrowed("http"),
        region: None,
        account: None,
        service: Cow::Owned(exchange.host.clone()),
        signing_name: Cow::Borrowed(""),
        operation: Cow::Owned(parts.method.to_string()),
        candidates: Vec::new(),
        protocol: Protocol::Http,
        actions: vec![Action { name: Cow::Owned(format!("http:{}", parts.method)), level }],
        resources: vec![format!("https://{}{}", exchange.host, exchange.path)],
        pairs: Vec::new(),
        unknown: Vec::new(),
        unread: Vec::new(),
        references: chaperone_model::References::default(),
        parameters: serde_json::Value::Null,
        looked_up: None,
        payload: Payload::None,
    }
}
