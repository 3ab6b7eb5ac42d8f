//! From a request to a [`Call`]: which operation, which IAM actions, which resources, with which parameters.
//!
//! Pure: what is taken for what depends on the bytes and the catalog alone. What the bytes leave open is in the call as
//! all candidates' actions together; what they contradict is refused.

use std::{borrow::Cow, cell::OnceCell};

use chaperone_model::{Call, Payload, Protocol};
use http::{
    Method, Version,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, UPGRADE},
    request::Parts,
};
use serde_json::{Map, Value};

use crate::{
    actions,
    catalog::{Candidate, Catalog, Operation, Service, ShapeId},
    decode_error::DecodeError,
    endpoint::{Endpoint, models},
    head::announces_body,
    host::{HostKind, HostMatch, S3At, Services},
    request_auth::{RequestAuth, payload_shape},
    resources::Place,
    route::{Query, narrow},
    websocket,
};

mod cbor;
pub(crate) mod envelope;
mod form;
mod gzip;
mod json;
mod look_up;
mod markers;
mod rest;
pub(crate) mod value;
mod xml;

use markers::Markers;
use value::Budget;

/// Whether [`Catalog::decode`] needs the request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyNeed {
    /// No: it may stream.
    None,
    /// All of it.
    Whole,
}

/// What decoding looks at, read once.
struct Request<'a> {
    parts: &'a Parts,
    /// The path, with the bucket of the host's name put before it.
    path: Cow<'a, str>,
    query: Query<'a>,
    body: Option<&'a [u8]>,
    /// The query is signed by somebody else than the agent, who was given the URL.
    presigned: bool,
    /// The body without its compression, once somebody asked.
    expanded: OnceCell<Result<Vec<u8>, DecodeError>>,
}

impl<'a> Request<'a> {
    fn new(host: &HostMatch, parts: &'a Parts, body: Option<&'a [u8]>) -> Result<Self, DecodeError> {
        // A query that signs is one of a URL that was given; the agent's own have become fields of the head by now.
        let presigned = parts.uri.query().is_some()
            && !parts.headers.contains_key(AUTHORIZATION)
            && matches!(RequestAuth::of(parts), RequestAuth::Presigned { .. } | RequestAuth::PresignedV2 { .. });
        envelope::check_query(parts, presigned)?;
        let query = Query::parse(parts.uri.query())?;
        Ok(Self { parts, path: path(host, parts), query, body, presigned, expanded: OnceCell::new() })
    }

    /// The body as the service reads it. `operation` is the one that reads it, when that is known.
    fn plain(&self, operation: Option<&Operation>) -> Result<&[u8], DecodeError> {
        let body = self.body.ok_or(DecodeError::BodyNeeded)?;
        let mut encodings = self.parts.headers.get_all(CONTENT_ENCODING).iter().map(http::HeaderValue::as_bytes);
        match (encodings.next(), encodings.next()) {
            (None | Some(b"identity"), None) => Ok(body),
            (Some(b"gzip"), None) if operation.is_none_or(|operation| operation.compressible != 0) => {
                let expanded = self.expanded.get_or_init(|| gzip::expanded(body));
                expanded.as_deref().map_err(Clone::clone)
            }
            _ => Err(DecodeError::Body("compressed, where no client of AWS compresses it")),
        }
    }

    fn text(&self, operation: Option<&Operation>) -> Result<&str, DecodeError> {
        std::str::from_utf8(self.plain(operation)?).map_err(|_| DecodeError::Body("not UTF-8"))
    }
}

impl Catalog {
    /// Whether decoding needs the body. (Checking the signature may need it too: see [`payload_shape`].)
    pub fn body_need(&'static self, host: &HostMatch, parts: &Parts) -> BodyNeed {
        // One operation of all, of EFS, is a GET with a body. HTTP/2 needs no field to announce one.
        let announced = announces_body(parts);
        let silent = !announced && (parts.version != Version::HTTP_2 || parts.headers.contains_key(CONTENT_LENGTH));
        if matches!(parts.method, Method::GET | Method::HEAD) && silent {
            return BodyNeed::None;
        }
        if host.kind == HostKind::Endpoint(Endpoint::Mantle) || models::is_for_runtime(host, parts) {
            return BodyNeed::Whole;
        }
        // What can't be read is refused all the same.
        let Ok(request) = Request::new(host, parts, None) else { return BodyNeed::Whole };
        for &position in &host.services {
            let service = self.service(usize::from(position));
            let Some(protocol) = service.rest() else { return BodyNeed::Whole };
            if service.protocols.len() > 1 || service.name == "cloudsearchdomain" {
                return BodyNeed::Whole;
            }
            let found = route(service, protocol, &request);
            let reads = |c: &Candidate| {
                if !has_body(c.service, c.operation) || c.operation.method == "HEAD" {
                    // A body that has no place there: it must be seen to be empty.
                    return !silent;
                }
                // A long list of parts of the object whose name is in the path: nothing to decide by.
                let parts = c.service.name == "s3" && c.operation.name == "CompleteMultipartUpload";
                !c.operation.streams() && !parts
            };
            if found.iter().any(reads) {
                return BodyNeed::Whole;
            }
        }
        BodyNeed::None
    }

    /// What the request asks for. `account` is whose credentials will sign, for the resources' names.
    pub fn decode(
        &'static self,
        host: &HostMatch,
        parts: &Parts,
        body: Option<&[u8]>,
        authority: &RequestAuth<'_>,
        account: Option<&str>,
    ) -> Result<Call, DecodeError> {
        if let HostKind::Endpoint(Endpoint::Application(what) | Endpoint::NoAction(what)) = &host.kind {
            return Err(DecodeError::NoAction { what });
        }
        envelope::check_head(parts)?;
        let invoke = models::as_invoke(host, parts, body).transpose()?;
        let parts = invoke.as_ref().unwrap_or(parts);
        let (services, place, signing_name) = self.scope(host, parts, authority, account)?;
        if parts.headers.contains_key(UPGRADE) {
            let names: Vec<_> = services.iter().map(|&i| self.names[usize::from(i)].name).collect();
            return websocket::call(host, &names, parts, &place, signing_name);
        }
        if let HostKind::Endpoint(endpoint) = &host.kind {
            return endpoint.call(parts, body, &place, signing_name);
        }
        if services.is_empty() {
            return Err(DecodeError::UnknownService);
        }
        let request = Request::new(host, parts, body)?;
        let (candidates, form) = self.candidates(&host.kind, &services, &request)?;
        if candidates.is_empty() {
            let names: Vec<_> = services.iter().map(|&i| self.names[usize::from(i)].name).collect();
            return Err(DecodeError::NoOperation { service: names.join(", ") });
        }
        // The SDKs' own name for the operation must be one of those that the rest of the request says.
        if let Some(named) = request.query.get("x-id")
            && candidates.iter().all(|candidate| candidate.operation.name != named)
        {
            let (named, operation) = (envelope::shown(named), candidates[0].operation.name);
            return Err(DecodeError::Envelope(format!(
                "the request's query says x-id={named}, and the rest of it is {operation}"
            )));
        }
        let current = candidates.iter().any(|candidate| candidate.operation.deprecated == 0);
        let mut read = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            envelope::check(&candidate, &request, form.as_ref(), host)?;
            let mut budget = Budget::new();
            let members = members(&candidate, &request, form.as_ref(), &mut budget)?;
            envelope::check_members(&candidate, &request, &members)?;
            envelope::check_fields(&candidate, &parts.headers, &mut budget);
            // A superseded twin may know as single what its successor knows as a list (S3's notifications).
            if budget.twice && (candidate.operation.deprecated == 0 || !current) {
                return Err(DecodeError::Contradiction("a member of the input comes twice"));
            }
            read.push((candidate, members, budget));
        }
        fitting_best(&mut read);
        let primary = primary(&read).expect("BUG: the best of some is one");
        let (service, operation) = (primary.service, primary.operation);
        let protocol = primary.protocol;

        let mut merged = actions::Requirements::default();
        let (mut parameters, mut unread) = (Value::Null, Vec::new());
        let mut names = Vec::new();
        let several = read.len() > 1;
        for (candidate, members, mut budget) in read {
            let dropped = budget.dropped;
            if several {
                names.push(format!("{}:{}", candidate.service.name, candidate.operation.name));
            }
            merged.add(&candidate, &members, &parts.headers, &request.query, &request.path, host, &place, dropped)?;
            if std::ptr::eq(candidate.operation, operation) {
                unread = budget.take_unread();
                parameters = budget.finish(members);
            }
        }
        let signing_name = signing_name.map_or(Cow::Borrowed(service.signing_name), |name| Cow::Owned(name.to_owned()));
        let actions::Needed { actions, resources, pairs, unknown, references, has_all_references } = merged.finish();
        if !has_all_references {
            unread.push("ARNs and accounts past the first 2,000".to_owned());
        }
        Ok(Call {
            partition: Cow::Borrowed(place.partition),
            region: place.region,
            account: account.map(|account| Cow::Owned(account.to_owned())),
            service: Cow::Borrowed(service.name),
            signing_name,
            operation: Cow::Borrowed(operation.name),
            candidates: names,
            protocol,
            actions,
            resources,
            pairs,
            unknown,
            unread,
            references,
            parameters,
            looked_up: None,
            payload: if operation.no_auth != 0 && matches!(authority, RequestAuth::None) {
                Payload::None
            } else {
                payload_shape(parts)
            },
        })
    }

    /// Cross-checks what the agent signed for with the host, and says which services and which place are left.
    fn scope<'a>(
        &'static self,
        host: &HostMatch,
        parts: &Parts,
        authority: &'a RequestAuth<'_>,
        account: Option<&'a str>,
    ) -> Result<(Services, Place<'a>, Option<&'a str>), DecodeError> {
        let mut place = Place { partition: host.partition, region: host.region.clone(), account };
        let RequestAuth::Header(header) = authority else {
            return Ok((host.services.clone(), place, None));
        };
        let wrong = || DecodeError::Scope { signed: format!("{}/{}", header.region, header.service) };
        let services: Services = match &host.kind {
            HostKind::S3Bucket { at, .. } => {
                let fits = match at {
                    S3At::AccessPoint | S3At::Bucket | S3At::MultiRegion => header.service == "s3",
                    S3At::Express => matches!(header.service, "s3" | "s3express"),
                    S3At::ObjectLambda => header.service == "s3-object-lambda",
                    S3At::Outposts => header.service == "s3-outposts",
                };
                fits.then(|| host.services.clone()).ok_or_else(wrong)?
            }
            HostKind::Unknown => Services::new(),
            HostKind::Endpoint(endpoint) => {
                endpoint.signing_names().contains(&header.service).then(Services::new).ok_or_else(wrong)?
            }
            HostKind::S3ExpressControl | HostKind::S3Path | HostKind::Service => {
                // The message broker has its name at no other time.
                let broker = header.service == websocket::IOT && parts.headers.contains_key(UPGRADE);
                let signs = |i: &&u16| {
                    let name = &self.names[usize::from(**i)];
                    name.signing.contains(&header.service) || broker && name.name == "iot-data"
                };
                let services: Services = host.services.iter().filter(signs).copied().collect();
                if services.is_empty() {
                    return Err(wrong());
                }
                services
            }
        };
        let (region, partition) = self.region(header.region).ok_or_else(wrong)?;
        // `aws` and `aws-us-gov` share their suffixes, so without a region in the host's name the scope tells.
        let same = partition == host.partition
            || (host.region.is_none() && host.partition == "aws" && partition == "aws-us-gov");
        match &host.region {
            _ if !same => return Err(wrong()),
            Some(of_host) if *of_host == region => {}
            Some(_) => {
                // Endpoints that sign for a fixed region whatever their own.
                let fixed = |i: &u16| self.names[usize::from(*i)].signing_regions.contains(&header.region);
                if !services.iter().any(fixed) {
                    return Err(wrong());
                }
            }
            None => {
                place.partition = partition;
                place.region = Some(region);
            }
        }
        Ok((services, place, Some(header.service)))
    }

    /// What the request can be, and its form, if that says so.
    fn candidates<'r>(
        &'static self,
        kind: &HostKind,
        services: &[u16],
        request: &'r Request<'_>,
    ) -> Result<(Vec<Candidate>, Option<form::Form<'r>>), DecodeError> {
        let forms = services.iter().any(|&i| self.service(usize::from(i)).form().is_some());
        let markers = Markers::of(request, forms)?;
        let mut found: Vec<Candidate> = Vec::new();
        for &position in services {
            let service = self.service(usize::from(position));
            match markers.operation(service)? {
                Some(candidate) => found.push(candidate),
                None if markers.any() => {}
                None => {
                    if let Some(protocol) = service.rest() {
                        let mut routed = route(service, protocol, request);
                        if service.name == "s3" {
                            // The two differ by host alone.
                            let other = match kind {
                                HostKind::S3ExpressControl => "ListBuckets",
                                _ => "ListDirectoryBuckets",
                            };
                            // No directory bucket is called so: their names end in `--x-s3`.
                            let control =
                                *kind == HostKind::S3ExpressControl && request.path.starts_with("/v20180820/");
                            routed.retain(|candidate| candidate.operation.name != other && !control);
                        }
                        if service.name != "s3" && !routed.is_empty() {
                            check_path(&request.path)?;
                        }
                        found.extend(routed);
                    }
                }
            }
        }
        // Versions 1 and 2 of Elastic Load Balancing share everything but the API's version.
        if let Some(version) = markers.form.as_ref().and_then(|form| form.get("Version"))
            && found.iter().any(|candidate| candidate.service.api_version == Some(version))
        {
            found.retain(|candidate| candidate.service.api_version == Some(version));
        }
        Ok((found, markers.form))
    }
}

/// The candidate whose name the call bears: one that understands all of the request, if there is any; of services that
/// share everything, the one that the others sign as; of operations that do, the one that isn't superseded.
fn primary(read: &[(Candidate, Map<String, Value>, Budget)]) -> Option<&Candidate> {
    let rank = |(c, _, budget): &&(Candidate, Map<String, Value>, Budget)| {
        (budget.unread_count(), c.operation.deprecated, c.service.name != c.service.signing_name)
    };
    read.iter().min_by_key(rank).map(|(candidate, ..)| candidate)
}

/// Of services that share paths or actions (RDS, Neptune and DocumentDB, say), those whose models know the most of what
/// was sent. Only where it makes no difference to what must be permitted: otherwise a field that means nothing could
/// choose.
fn fitting_best(read: &mut Vec<(Candidate, Map<String, Value>, Budget)>) {
    let Some(((first, ..), others)) = read.split_first() else { return };
    let same = |one: &Operation, other: &Operation| {
        one.actions.iter().map(|action| action.0).eq(other.actions.iter().map(|action| action.0))
            && one.templates == other.templates
            && one.arn_members == other.arn_members
            && one.selectors == other.selectors
            && one.passes_role == other.passes_role
    };
    if others.iter().all(|(o, ..)| o.service.name != first.service.name && same(first.operation, o.operation)) {
        let most = read.iter().map(|(_, members, _)| members.len()).max();
        read.retain(|(_, members, _)| Some(members.len()) == most);
    }
}

fn path<'a>(host: &HostMatch, parts: &'a Parts) -> Cow<'a, str> {
    match &host.kind {
        // The only operation of Object Lambda's host whose name's first label isn't an access point.
        HostKind::S3Bucket { at: S3At::ObjectLambda, .. }
            if parts.method == Method::POST && parts.uri.path() == "/WriteGetObjectResponse" =>
        {
            Cow::Borrowed(parts.uri.path())
        }
        HostKind::S3Bucket { bucket, .. } => Cow::Owned(format!("/{bucket}{}", parts.uri.path())),
        _ => Cow::Borrowed(parts.uri.path()),
    }
}

/// Outside of S3, AWS normalises paths before it looks at them, so these could be read in two ways.
fn check_path(path: &str) -> Result<(), DecodeError> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    if inner == "/" {
        return Err(DecodeError::Path("a path with empty or dot segments"));
    }
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for segment in inner.split('/') {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
        if (segment.is_empty() && !inner.is_empty()) || decoded == "." || decoded == ".." {
            return Err(DecodeError::Path("a path with empty or dot segments"));
        }
    }
    Ok(())
}

fn route(service: &'static Service, protocol: Protocol, request: &Request<'_>) -> Vec<Candidate> {
    let method = match request.parts.method.as_str() {
        // SDKs send long searches by POST, with the query as the body.
        "POST" if service.name == "cloudsearchdomain" && request.path.ends_with("/search") => "GET",
        method => method,
    };
    let matches = service.routes.matches(method, &request.path);
    narrow(matches, service, &request.query, &request.parts.headers)
        .into_iter()
        .map(|i| Candidate { service, operation: &service.operations[usize::from(i)], protocol })
        .collect()
}

pub(crate) fn has_body(service: &Service, operation: &Operation) -> bool {
    service.structure(operation.input).is_some_and(|structure| {
        structure.payload.is_some()
            || structure.members.iter().any(|member| member.location() == crate::catalog::Location::Body)
    })
}

/// Of an operation that has no input, every member is one that nothing here knows.
fn without_input(operation: &Operation, members: Map<String, Value>, budget: &mut Budget) -> Map<String, Value> {
    if operation.input.is_none() {
        members.keys().for_each(|name| budget.unread_in_body(name));
    }
    members
}

/// The operation's input.
fn members(
    candidate: &Candidate,
    request: &Request<'_>,
    form: Option<&form::Form<'_>>,
    budget: &mut Budget,
) -> Result<Map<String, Value>, DecodeError> {
    let Candidate { service, operation, protocol } = candidate;
    let shape = operation.input.unwrap_or(ShapeId::UNTYPED);
    Ok(match protocol {
        Protocol::Json => {
            if request.parts.method != Method::POST {
                return Err(DecodeError::Contradiction("X-Amz-Target without POST"));
            }
            let body = request.plain(Some(operation))?;
            if body.is_empty() {
                return Ok(Map::new());
            }
            without_input(operation, json::members(body, service, shape, budget)?, budget)
        }
        Protocol::RpcV2Cbor => {
            if request.parts.method != Method::POST {
                return Err(DecodeError::Contradiction("an RPC path without POST"));
            }
            let body = request.plain(Some(operation))?;
            if body.is_empty() {
                return Ok(Map::new());
            }
            without_input(operation, cbor::members(body, service, shape, budget)?, budget)
        }
        Protocol::Query | Protocol::Ec2 => {
            // The operation that reads it decides whether it may be compressed; one in the query comes without a body.
            if request.parts.method == Method::POST {
                request.plain(Some(operation))?;
            } else if request.body.map_or_else(|| announces_body(request.parts), |body| !body.is_empty()) {
                return Err(DecodeError::Contradiction("its operation is in the query, and it has a body"));
            }
            form.map_or_else(Map::new, |form| form.members(service, operation.input, *protocol, budget))
        }
        Protocol::RestJson | Protocol::RestXml => {
            let reads = !operation.streams() && has_body(service, operation) && operation.method != "HEAD";
            let body = match request.body {
                Some(body) if reads && !body.is_empty() => Some(request.plain(Some(operation))?),
                _ => None,
            };
            // A search by POST has its query in the body.
            let searched = envelope::is_search(candidate, request.parts)
                .then(|| request.text(Some(operation)).and_then(|text| Query::parse(Some(text))))
                .transpose()?;
            let query = searched.as_ref().unwrap_or(&request.query);
            let (headers, presigned) = (&request.parts.headers, request.presigned);
            let from = rest::Request { path: &request.path, query, headers, body, presigned };
            rest::members(&from, service, operation, *protocol, budget)?
        }
        Protocol::Http => Map::new(),
    })
}
