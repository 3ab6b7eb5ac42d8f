//! Where a request names its operation, in the protocols that don't route by path.

use chaperone_model::Protocol;
use http::{HeaderName, Method, request::Parts};

use super::{Candidate, DecodeError, Request, envelope::Media, form};
use crate::{catalog::Service, head::SMITHY_PROTOCOL, request_auth::single};

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// What names the operation in the protocols that don't route by path. A request with two different ones is refused,
/// because it depends on the service which one counts.
pub(super) struct Markers<'a> {
    target: Option<&'a str>,
    rpc: Option<(&'a str, &'a str)>,
    pub form: Option<form::Form<'a>>,
}

impl<'a> Markers<'a> {
    /// `forms`: a service that speaks a form-encoded protocol is among the candidates.
    pub fn of(request: &'a Request<'a>, forms: bool) -> Result<Self, DecodeError> {
        let Parts { method, headers, uri, .. } = request.parts;
        let target = match headers.get_all(TARGET).iter().count() {
            0 => None,
            1 => Some(single(headers, TARGET).ok_or(DecodeError::Contradiction("X-Amz-Target is not ASCII"))?),
            _ => return Err(DecodeError::Contradiction("X-Amz-Target comes twice")),
        };
        let rpc = match single(headers, SMITHY_PROTOCOL) {
            Some("rpc-v2-cbor") => {
                let named = uri.path().strip_prefix("/service/").and_then(|rest| rest.split_once("/operation/"));
                // One segment each, written plainly.
                let plain = |text: &str| {
                    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
                };
                let named = named.filter(|(service, operation)| plain(service) && plain(operation));
                Some(named.ok_or(DecodeError::Contradiction("smithy-protocol without the path of an operation"))?)
            }
            None if !headers.contains_key(SMITHY_PROTOCOL) => None,
            _ => return Err(DecodeError::Contradiction("smithy-protocol is none that AWS's services speak")),
        };
        let in_query = forms && request.query.get("Action").is_some();
        let is_form = forms && Media::of(headers) == Media::Form;
        let body = if is_form || in_query && method == Method::POST { request.text(None)? } else { "" };
        if in_query && !body.is_empty() {
            return Err(DecodeError::Contradiction("its operation is in the query, and it has a body"));
        }
        if is_form && !body.is_empty() && uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(DecodeError::Contradiction("it has a form, and a query as well"));
        }
        let text = if in_query { uri.query().unwrap_or_default() } else { body };
        let form = if text.is_empty() { None } else { Some(form::Form::parse(text)?) };
        Ok(Self { target, rpc, form: form.filter(|form| form.get("Action").is_some()) })
    }

    pub fn any(&self) -> bool {
        self.target.is_some() || self.rpc.is_some() || self.form.is_some()
    }

    /// The operation of this service that the markers name.
    pub fn operation(&self, service: &'static Service) -> Result<Option<Candidate>, DecodeError> {
        let count = [self.target.is_some(), self.rpc.is_some(), self.form.is_some()].iter().filter(|x| **x).count();
        if count > 1 {
            return Err(DecodeError::Contradiction("it names its operation in the ways of two protocols"));
        }
        let (protocol, name) = if let Some(target) = self.target {
            let named = target.rsplit_once('.');
            let ours = named.filter(|(prefix, _)| Some(*prefix) == service.target_prefix);
            (service.speaks(Protocol::Json).then_some(Protocol::Json), ours.map(|(_, name)| name))
        } else if let Some((named, operation)) = self.rpc {
            let cbor = service.speaks(Protocol::RpcV2Cbor).then_some(Protocol::RpcV2Cbor);
            let ours = service.target_prefix.is_none_or(|prefix| {
                prefix == named || prefix.strip_suffix(named).is_some_and(|rest| rest.ends_with('.'))
            });
            (cbor, ours.then_some(operation))
        } else if let Some(form) = &self.form {
            (service.form(), form.get("Action"))
        } else {
            (None, None)
        };
        Ok(protocol
            .zip(name)
            .and_then(|(protocol, name)| Some(Candidate { service, operation: service.operation(name)?, protocol })))
    }
}
