//! SigV4's canonical request, for checking the agent's signature and for making ours: one piece of code for both, so
//! that what is checked is what is signed.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::{borrow::Cow, fmt::Write as _};

use http::{HeaderMap, request::Parts};

use crate::request_auth::host_field;

/// How the path goes into the canonical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathRules {
    /// Normalised (`.`, `..` and `//` resolved) and encoded once more than on the wire: every service but S3.
    Generic,
    /// Encoded once, never normalised: S3, S3 Express, S3 Object Lambda, and the objects on Outposts.
    S3,
}

impl PathRules {
    /// The rules of a signing name.
    pub fn of(signing_name: &str) -> Self {
        match signing_name {
            "s3" | "s3express" | "s3-object-lambda" => Self::S3,
            _ => Self::Generic,
        }
    }

    /// The rules of a request that is signed by this name. Two APIs are signed as `s3-outposts`: S3's own, by S3's rules
    /// (`disableDoubleEncoding` in its endpoint rule set), and that of S3 on Outposts' endpoints, by the generic ones.
    pub(crate) fn of_request(signing_name: &str, parts: &Parts) -> Self {
        match signing_name {
            "s3-outposts" if !parts.uri.path().starts_with("/S3Outposts/") || !is_outposts_own(parts) => Self::S3,
            name => Self::of(name),
        }
    }
}

/// The host is the service's own, and not an access point's.
fn is_outposts_own(parts: &Parts) -> bool {
    host_field(parts).is_some_and(|host| host.starts_with("s3-outposts"))
}

/// Writes the canonical request up to and including the line before the payload's hash. `signed` are the names of the
/// signed header fields, sorted; false if a signed field isn't there.
pub(crate) fn write_head<'a>(
    out: &mut String,
    parts: &Parts,
    rules: PathRules,
    signed: impl Iterator<Item = &'a str> + Clone,
) -> bool {
    out.push_str(parts.method.as_str());
    out.push('\n');
    write_path(out, parts.uri.path(), rules);
    out.push('\n');
    write_query(out, parts.uri.query().unwrap_or_default());
    out.push('\n');
    for name in signed.clone() {
        out.push_str(name);
        out.push(':');
        let there = match name {
            "host" => write_host(out, parts),
            AUTHORITY => write_authority(out, parts),
            name => write_field(out, &parts.headers, name),
        };
        if !there {
            return false;
        }
        out.push('\n');
    }
    out.push('\n');
    for (i, name) in signed.enumerate() {
        if i > 0 {
            out.push(';');
        }
        out.push_str(name);
    }
    out.push('\n');
    true
}

/// What clients sign in the place of `host` that speak HTTP/2 by default, such as the JavaScript SDK's for Bedrock and
/// Kinesis: there it stands for the host (RFC 9113, 8.3.1).
pub(crate) const AUTHORITY: &str = ":authority";

fn write_authority(out: &mut String, parts: &Parts) -> bool {
    let authority = parts.uri.authority().filter(|_| parts.version == http::Version::HTTP_2);
    authority.map(|authority| out.push_str(authority.as_str())).is_some()
}

fn write_host(out: &mut String, parts: &Parts) -> bool {
    host_field(parts).map(|host| out.push_str(host)).is_some()
}

fn write_field(out: &mut String, headers: &HeaderMap, name: &str) -> bool {
    let mut first = true;
    for value in headers.get_all(name) {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { return false };
        if !first {
            out.push(',');
        }
        first = false;
        let value = value.trim_matches([' ', '\t']);
        if value.contains("  ") {
            let mut before = ' ';
            for c in value.chars() {
                if c != ' ' || before != ' ' {
                    out.push(c);
                }
                before = c;
            }
        } else {
            out.push_str(value);
        }
    }
    !first
}

const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push_encoded(out: &mut String, byte: u8) {
    if unreserved(byte) {
        out.push(byte as char);
    } else {
        let _ = write!(out, "%{byte:02X}");
    }
}

/// `text` with every byte but the unreserved ones percent-encoded.
pub(crate) fn write_encoded(out: &mut String, text: &[u8]) {
    for &byte in text {
        push_encoded(out, byte);
    }
}

fn write_path(out: &mut String, path: &str, rules: PathRules) {
    match rules {
        PathRules::S3 => {
            let path = if path.is_empty() { "/" } else { path };
            if path.bytes().all(|b| unreserved(b) || b == b'/') {
                out.push_str(path);
                return;
            }
            // S3 decodes the path that it got and encodes it again, so `:` and `%3A` on the wire are the same.
            for (i, segment) in path.split('/').enumerate() {
                if i > 0 {
                    out.push('/');
                }
                let decoded: Cow<'_, [u8]> = percent_encoding::percent_decode_str(segment).into();
                write_encoded(out, &decoded);
            }
        }
        PathRules::Generic => {
            for &byte in normalised(path).as_bytes() {
                if byte == b'/' {
                    out.push('/');
                } else {
                    push_encoded(out, byte);
                }
            }
        }
    }
}

/// RFC 3986's remove_dot_segments, with empty segments dropped as botocore and AWS do.
fn normalised(path: &str) -> Cow<'_, str> {
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    if !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if kept.is_empty() || ["/", "/.", "/.."].iter().any(|end| path.ends_with(end)) {
        out.push('/');
    }
    Cow::Owned(out)
}

fn write_query(out: &mut String, query: &str) {
    if query.is_empty() {
        return;
    }
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (recoded(name), recoded(value))
        })
        .collect();
    pairs.sort_unstable();
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
}

fn recoded(text: &str) -> String {
    if text.bytes().all(unreserved) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    let decoded: Cow<'_, [u8]> = percent_encoding::percent_decode_str(text).into();
    write_encoded(&mut out, &decoded);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str, rules: PathRules) -> String {
        let mut out = String::new();
        write_path(&mut out, text, rules);
        out
    }

    #[test]
    fn s3_paths_are_encoded_once_and_never_normalised() {
        for (wire, canonical) in [
            ("/", "/"),
            ("/a//b", "/a//b"),
            ("/a/../b", "/a/../b"),
            ("/a%20b", "/a%20b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a+b:c", "/a%2Bb%3Ac"),
            ("/a%2bb", "/a%2Bb"),
            ("/%E2%82%AC", "/%E2%82%AC"),
        ] {
            assert_eq!(path(wire, PathRules::S3), canonical);
        }
    }

    #[test]
    fn other_paths_are_encoded_twice_and_normalised() {
        for (wire, canonical) in [
            ("", "/"),
            ("//", "/"),
            ("/./", "/"),
            ("/a//b/./c/../d/", "/a/b/d/"),
            ("/model/a%3A0/invoke", "/model/a%253A0/invoke"),
            ("/model/a:0/invoke", "/model/a%3A0/invoke"),
            ("/a/..", "/"),
        ] {
            assert_eq!(path(wire, PathRules::Generic), canonical);
        }
    }
}
