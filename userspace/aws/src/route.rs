//! Telling apart the operations that share a route, by query and headers; and queries themselves.

use std::{borrow::Cow, cmp::Ordering};

use http::HeaderMap;

use crate::{
    catalog::{Operation, Service},
    decode_error::DecodeError,
};

/// A query, decoded once.
pub(crate) struct Query<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// More pairs than any real query has.
const MAX_QUERY: usize = 2000;

impl<'q> Query<'q> {
    /// Fails where two readers could differ about how it is encoded.
    pub fn parse(query: Option<&'q str>) -> Result<Self, DecodeError> {
        let mut pairs = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() >= MAX_QUERY {
                return Err(DecodeError::TooLarge("query"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decoded(name)?, decoded(value)?));
        }
        Ok(Self(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| &**value)
    }
}

/// Form decoding: `+` is a space. What isn't properly encoded UTF-8 is refused: readers differ by what they make of it.
pub(crate) fn decoded(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    if memchr::memchr2(b'+', b'%', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    if !is_percent_encoded(text) {
        return Err(DecodeError::Path("a `%` without two hexadecimal digits after it"));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    let decoded = decoded.map_err(|_| DecodeError::Path("a query or form that is not UTF-8"))?;
    Ok(Cow::Owned(decoded.into_owned()))
}

/// Whether every `%` has two hexadecimal digits after it.
pub(crate) fn is_percent_encoded(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// Of operations that share a path, those that query and headers leave: the ones whose conditions hold, without those
/// whose conditions are a part of another's. What is left and more than one is ambiguous.
///
/// S3 takes some of its operations from header fields, and others from the query, so that one doesn't outweigh the other;
/// elsewhere the query routes.
pub(crate) fn narrow(candidates: Vec<u16>, service: &Service, query: &Query<'_>, headers: &HeaderMap) -> Vec<u16> {
    let operations = &service.operations;
    let by_query = service.name != "s3";
    if let [only] = candidates[..] {
        // An only route with conditions that don't hold may be anything: still this operation or an error of AWS's.
        return vec![only];
    }
    let holding: Vec<(u16, Conditions)> = candidates
        .into_iter()
        .filter_map(|position| Some((position, conditions(&operations[usize::from(position)], query, headers)?)))
        .collect();
    let within = |a: &[&str], b: &[&str]| a.iter().all(|name| b.contains(name));
    let dominated = |one: &Conditions| {
        holding.iter().any(|(_, other)| {
            let query = other.query.len().cmp(&one.query.len());
            other.firm
                && within(&one.query, &other.query)
                && match query {
                    Ordering::Greater => by_query || within(&one.headers, &other.headers),
                    Ordering::Equal => other.headers.len() > one.headers.len() && within(&one.headers, &other.headers),
                    Ordering::Less => false,
                }
        })
    };
    holding.iter().filter(|(_, conditions)| !dominated(conditions)).map(|(position, ..)| *position).collect()
}

/// What an operation asks of query and header fields beside its path.
struct Conditions {
    query: Vec<&'static str>,
    headers: Vec<&'static str>,
    /// False: a required value is there and empty, which AWS may take either way.
    firm: bool,
}

/// The operation's conditions if all hold.
fn conditions(operation: &Operation, query: &Query<'_>, headers: &HeaderMap) -> Option<Conditions> {
    let mut all = Conditions { query: Vec::new(), headers: Vec::new(), firm: true };
    for literal in &operation.query_literals {
        match literal.split_once('=') {
            Some((name, value)) => query.all(name).any(|v| v == value).then_some(())?,
            None => {
                query.get(literal)?;
            }
        }
        all.query.push(literal.split('=').next().unwrap_or(literal));
    }
    for name in &operation.required_query {
        all.firm &= !query.get(name)?.is_empty();
        if !all.query.contains(name) {
            all.query.push(name);
        }
    }
    for name in &operation.required_headers {
        all.firm &= !headers.get(*name)?.is_empty();
        all.headers.push(name);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;

    fn s3(method: &str, target: &str, headers: &[(&'static str, &str)]) -> Vec<&'static str> {
        let catalog = Catalog::global();
        let service = catalog.service(usize::from(catalog.position("s3").unwrap()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        let found =
            narrow(service.routes.matches(method, path), service, &Query::parse(Some(query)).unwrap(), &headers);
        found.into_iter().map(|i| service.operations[usize::from(i)].name).collect()
    }

    #[test]
    fn s3_operations_are_told_apart_by_query_and_headers() {
        assert_eq!(s3("GET", "/bucket/a/b", &[]), ["GetObject"]);
        assert_eq!(s3("GET", "/bucket/a/b?acl", &[]), ["GetObjectAcl"]);
        assert_eq!(s3("GET", "/bucket/a/b?%61cl=", &[]), ["GetObjectAcl"]);
        assert_eq!(s3("GET", "/bucket/a?uploadId=x", &[]), ["ListParts"]);
        assert_eq!(s3("PUT", "/bucket/a", &[("x-amz-copy-source", "/b/c")]), ["CopyObject"]);
        assert_eq!(s3("PUT", "/bucket/a?partNumber=1&uploadId=x", &[]), ["UploadPart"]);
        assert_eq!(s3("GET", "/bucket?list-type=2", &[]), ["ListObjectsV2"]);
        assert_eq!(s3("GET", "/bucket/?list-type=2", &[]), ["ListObjectsV2"]);
        assert_eq!(s3("DELETE", "/bucket", &[]), ["DeleteBucket"]);
        assert_eq!(s3("POST", "/bucket?delete", &[]), ["DeleteObjects"]);
        assert_eq!(s3("GET", "/bucket//key", &[]), ["GetObject"]);
    }

    #[test]
    fn what_aws_could_take_either_way_is_both() {
        let both = s3("GET", "/bucket/key?acl&tagging", &[]);
        assert!(both.contains(&"GetObjectAcl") && both.contains(&"GetObjectTagging"), "{both:?}");
        let both = s3("DELETE", "/bucket/key?uploadId=", &[]);
        assert!(both.contains(&"DeleteObject") && both.contains(&"AbortMultipartUpload"), "{both:?}");
    }
}
