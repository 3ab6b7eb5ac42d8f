//! Where REST operations carry their input: labels of the path, query, header fields, body.

use chaperone_model::Protocol;
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::{DecodeError, envelope, json, value::Budget, xml};
use crate::{
    catalog::{Location, Member, Operation, Service, Shape, ShapeId, Structure},
    route::Query,
};

/// Header fields by name: few requests have more than twelve.
type Fields<'a> = SmallVec<[(&'a str, &'a HeaderValue); 12]>;

/// Everything that a REST request's input is read from.
pub(crate) struct Request<'a> {
    pub path: &'a str,
    pub query: &'a Query<'a>,
    pub headers: &'a HeaderMap,
    pub body: Option<&'a [u8]>,
    /// The query is signed, and what signs it is no part of the input.
    pub presigned: bool,
}

pub(crate) fn members(
    request: &Request<'_>,
    service: &'static Service,
    operation: &Operation,
    protocol: Protocol,
    budget: &mut Budget,
) -> Result<Map<String, Value>, DecodeError> {
    let mut out = Map::new();
    unclaimed(request, service, operation, budget)?;
    let Some(structure) = service.structure(operation.input) else { return Ok(out) };
    labels(request.path, operation.uri, structure, service, budget, &mut out)?;
    outside(request, structure, service, budget, &mut out);
    let body = match request.body {
        Some(body) if !body.is_empty() && !operation.streams() => body,
        _ => return Ok(out),
    };
    let shape = operation.input.unwrap_or(ShapeId::UNTYPED);
    if let Some(payload) = structure.payload {
        let Some(member) = structure.by_name(payload) else { return Ok(out) };
        budget.enter(member.0);
        let value = if operation.text_body() {
            let text = std::str::from_utf8(body).map_err(|_| DecodeError::Body("not UTF-8"))?;
            Some(budget.string(text))
        } else if protocol == Protocol::RestXml {
            let root = xml::Element::parse(body)?;
            Some(Value::Object(xml::members(&root, service, member.1, budget, 1)))
        } else {
            json::value(body, service, member.1, budget)?
        };
        budget.leave();
        if let Some(value) = value {
            out.insert(member.0.to_owned(), value);
        }
        return Ok(out);
    }
    if structure.members.iter().any(|member| member.location() == Location::Body) {
        let body = if protocol == Protocol::RestXml {
            xml::members(&xml::Element::parse(body)?, service, shape, budget, 0)
        } else {
            json::members(body, service, shape, budget)?
        };
        out.extend(body);
    }
    Ok(out)
}

fn labels(
    path: &str,
    template: &str,
    structure: &Structure,
    service: &'static Service,
    budget: &mut Budget,
    out: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let mut rest = path.strip_prefix('/').unwrap_or(path);
    let template = template.strip_suffix('/').unwrap_or(template);
    for (at, segment) in template.split('/').enumerate().skip(1) {
        let label = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        let (value, after) = match label {
            // All but as many segments as the template has after it.
            Some(label) if label.ends_with('+') => match template.split('/').count() - at - 1 {
                0 => (rest, ""),
                tail => {
                    let whole = rest.strip_suffix('/').unwrap_or(rest);
                    let end = whole.rmatch_indices('/').nth(tail - 1).map_or(whole.len(), |(end, _)| end);
                    (&whole[..end], whole.get(end + 1..).unwrap_or_default())
                }
            },
            _ => rest.split_once('/').unwrap_or((rest, "")),
        };
        rest = after;
        let Some(label) = label else { continue };
        let wire = label.trim_end_matches('+');
        let member = structure.members.iter().find(|m| m.location() == Location::Uri && m.wire() == wire);
        if let Some(member) = member {
            let text = percent_encoding::percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| DecodeError::Path("a path that is not UTF-8"))?;
            if let Some(value) = budget.scalar(&text, service, member.1) {
                out.insert(member.0.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn outside(
    request: &Request<'_>,
    structure: &Structure,
    service: &'static Service,
    budget: &mut Budget,
    out: &mut Map<String, Value>,
) {
    // An input has more members in header fields than a request has fields: comparing beats looking each up.
    let fields: Fields<'_> = request.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    for member in &structure.members {
        let value = match member.location() {
            Location::Query => match service.shape(member.1) {
                Shape::List { element, .. } => {
                    let mut kept = Vec::new();
                    for text in request.query.all(member.wire()) {
                        if !budget.element(1) {
                            break;
                        }
                        kept.extend(budget.scalar(text, service, *element));
                    }
                    (!kept.is_empty()).then_some(Value::Array(kept))
                }
                Shape::Map { value, .. } => rest_of_query(request, structure, service, *value, budget),
                _ => {
                    let mut all = request.query.all(member.wire());
                    let first = all.next();
                    budget.twice |= all.next().is_some();
                    first.and_then(|text| budget.scalar(text, service, member.1))
                }
            },
            Location::Header => {
                let ours = |(name, _): &&(&str, _)| name.eq_ignore_ascii_case(member.wire());
                let values: SmallVec<[&HeaderValue; 2]> = fields.iter().filter(ours).map(|(_, value)| *value).collect();
                budget.twice |= values.len() > 1 && !matches!(service.shape(member.1), Shape::List { .. });
                if values.iter().any(|value| value.to_str().is_err()) {
                    budget.unread(&["header.", member.wire()].concat());
                }
                let texts: SmallVec<[&str; 2]> = values.iter().filter_map(|value| value.to_str().ok()).collect();
                match texts[..] {
                    [] => None,
                    [only] => budget.scalar(only, service, member.1),
                    // A list may come in several fields, which are one with commas between them (RFC 9110, 5.3).
                    _ => budget.scalar(&texts.join(","), service, member.1),
                }
            }
            Location::HeaderPrefix => prefixed(request.headers, member.wire(), budget),
            Location::Body | Location::Uri => None,
        };
        if let Some(value) = value {
            out.insert(member.0.to_owned(), value);
        }
    }
}

/// What the query has besides the operation's members: names that control requests, and S3's subresources, are refused;
/// others, which may be newer than the catalog, are noted.
fn unclaimed(
    request: &Request<'_>,
    service: &'static Service,
    operation: &Operation,
    budget: &mut Budget,
) -> Result<(), DecodeError> {
    let structure = service.structure(operation.input);
    let members = || structure.into_iter().flat_map(|structure| &structure.members);
    let is_map =
        |member: &&Member| member.location() == Location::Query && matches!(service.shape(member.1), Shape::Map { .. });
    let takes_all = members().any(|member| is_map(&member));
    let mut literals: SmallVec<[&str; 4]> = SmallVec::new();
    for (name, value) in &request.query.0 {
        let name = &**name;
        if request.presigned && envelope::is_signing(name) {
            continue;
        }
        // The SDKs' own, for the operation's name.
        let named = name == "x-id";
        let literal = named || operation.query_literals.iter().any(|one| one.split('=').next() == Some(name));
        if literal {
            if literals.contains(&name) {
                return Err(DecodeError::Envelope(format!("the request's query has {} twice", envelope::shown(name))));
            }
            literals.push(name);
            continue;
        }
        if takes_all || members().any(|member| member.location() == Location::Query && member.wire() == name) {
            continue;
        }
        let what = if envelope::controls(name) {
            "which controls a request and has its place elsewhere"
        } else if service.name == "s3" && (value.is_empty() || is_subresource(service, name)) {
            "which would make it another operation of S3"
        } else {
            budget.unread(&["query.", name].concat());
            continue;
        };
        return Err(DecodeError::Envelope(format!("the request's query has {}, {what}", envelope::shown(name))));
    }
    Ok(())
}

/// Whether this is the name of one of S3's subresources, such as `acl`, in whatever case.
fn is_subresource(service: &'static Service, name: &str) -> bool {
    let is = |one: &&str| one.split('=').next().is_some_and(|one| one.eq_ignore_ascii_case(name));
    service.operations.iter().any(|operation| operation.query_literals.iter().any(is))
}

/// A map in the query takes all that no other member is called.
fn rest_of_query(
    request: &Request<'_>,
    structure: &Structure,
    service: &'static Service,
    value: ShapeId,
    budget: &mut Budget,
) -> Option<Value> {
    let claimed = |name: &str| {
        structure.members.iter().any(|m| {
            m.location() == Location::Query && m.wire() == name && !matches!(service.shape(m.1), Shape::Map { .. })
        })
    };
    let mut kept = Map::new();
    for (name, text) in request.query.0.iter().filter(|(name, _)| !claimed(name)) {
        if !budget.element(1) {
            break;
        }
        let name: String = name.chars().take(super::value::MAX_STRING).collect();
        match service.shape(value) {
            Shape::List { element, .. } => {
                let one = budget.scalar(text, service, *element);
                if let Value::Array(all) = kept.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                    all.extend(one);
                }
            }
            _ => {
                if let Some(one) = budget.scalar(text, service, value) {
                    kept.insert(name, one);
                }
            }
        }
    }
    (!kept.is_empty()).then_some(Value::Object(kept))
}

fn prefixed(headers: &HeaderMap, prefix: &str, budget: &mut Budget) -> Option<Value> {
    if prefix.is_empty() {
        return None;
    }
    let mut kept = Map::new();
    for (name, value) in headers {
        let Some(rest) = strip_prefix_ignoring_case(name.as_str(), prefix) else { continue };
        if !budget.element(1) {
            break;
        }
        match value.to_str() {
            Ok(text) => budget.twice |= kept.insert(rest.to_owned(), budget.string(text)).is_some(),
            Err(_) => budget.unread(&["header.", name.as_str()].concat()),
        }
    }
    (!kept.is_empty()).then_some(Value::Object(kept))
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix)).map(|_| &text[prefix.len()..])
}
