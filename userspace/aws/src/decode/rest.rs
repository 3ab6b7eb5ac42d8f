//! Where REST operations carry their input: labels of the path, query, header fields, body.

use chaperone_model::Protocol;
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::{DecodeError, json, value::Budget, xml};
use crate::{
    catalog::{Location, Operation, Service, Shape, ShapeId, Structure},
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
}

pub(crate) fn members(
    request: &Request<'_>,
    service: &Service,
    operation: &Operation,
    protocol: Protocol,
    budget: &mut Budget,
) -> Result<Map<String, Value>, DecodeError> {
    let mut out = Map::new();
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
        let value = if operation.text_body() {
            let text = std::str::from_utf8(body).map_err(|_| DecodeError::Body("not UTF-8"))?;
            Some(budget.string(text))
        } else if protocol == Protocol::RestXml {
            let root = xml::Element::parse(body)?;
            Some(Value::Object(xml::members(&root, service, member.1, budget, 1)))
        } else {
            json::value(body, service, member.1, budget)?
        };
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
    service: &Service,
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
    service: &Service,
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
                let mut values = fields.iter().filter(ours).map(|(_, value)| value);
                let first = values.next();
                let several = values.next().is_some();
                budget.twice |= several && !matches!(service.shape(member.1), Shape::List { .. });
                first.and_then(|value| value.to_str().ok()).and_then(|text| budget.scalar(text, service, member.1))
            }
            Location::HeaderPrefix => prefixed(request.headers, member.wire(), budget),
            Location::Body | Location::Uri => None,
        };
        if let Some(value) = value {
            out.insert(member.0.to_owned(), value);
        }
    }
}

/// A map in the query takes all that no other member is called.
fn rest_of_query(
    request: &Request<'_>,
    structure: &Structure,
    service: &Service,
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
        if let Ok(text) = value.to_str() {
            kept.insert(rest.to_owned(), budget.string(text));
        }
    }
    (!kept.is_empty()).then_some(Value::Object(kept))
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix)).map(|_| &text[prefix.len()..])
}
