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

/// How the values of signed header fields go into the canonical request, where signers differ in it. What is signed anew is
/// signed in the form that the agent's own signer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderForm {
    /// Of white space, runs of blanks alone become one blank, and tabs stay: as AWS documents it. Otherwise tabs are white
    /// space, as botocore and the SDKs for JavaScript and Java have it.
    pub keeps_tabs: bool,
    /// Bytes past ASCII are characters of Latin-1, which are signed in UTF-8: as botocore has it, since HTTP in Python is in
    /// Latin-1. Otherwise they are signed as they are.
    pub from_latin1: bool,
}

impl HeaderForm {
    /// Those that the agent's signer may have, given what is signed.
    pub(crate) fn of<'a>(headers: &HeaderMap, signed: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Self> {
        let (mut tabs, mut beyond) = (false, false);
        for value in signed.flat_map(|name| headers.get_all(name)) {
            tabs |= value.as_bytes().contains(&b'\t');
            beyond |= !value.as_bytes().is_ascii();
        }
        let all = [(false, false), (true, false), (false, true), (true, true)];
        all.into_iter()
            .filter(move |(keeps_tabs, from_latin1)| (tabs || !keeps_tabs) && (beyond || !from_latin1))
            .map(|(keeps_tabs, from_latin1)| Self { keeps_tabs, from_latin1 })
    }
}

/// Writes the canonical request up to and including the line before the payload's hash. `signed` are the names of the
/// signed header fields, sorted; false if a signed field isn't there.
pub(crate) fn write_head<'a>(
    out: &mut Vec<u8>,
    parts: &Parts,
    rules: PathRules,
    form: HeaderForm,
    signed: impl Iterator<Item = &'a str> + Clone,
) -> bool {
    let mut line = String::with_capacity(256);
    line.push_str(parts.method.as_str());
    line.push('\n');
    write_path(&mut line, parts.uri.path(), rules);
    line.push('\n');
    write_query(&mut line, parts.uri.query().unwrap_or_default());
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
    for name in signed.clone() {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        let there = match name {
            "host" => write_host(out, parts),
            AUTHORITY => write_authority(out, parts),
            name => write_field(out, &parts.headers, name, form),
        };
        if !there {
            return false;
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    for (i, name) in signed.enumerate() {
        if i > 0 {
            out.push(b';');
        }
        out.extend_from_slice(name.as_bytes());
    }
    out.push(b'\n');
    true
}

/// What clients sign in the place of `host` that speak HTTP/2 by default, such as the JavaScript SDK's for Bedrock and
/// Kinesis: there it stands for the host (RFC 9113, 8.3.1).
pub(crate) const AUTHORITY: &str = ":authority";

fn write_authority(out: &mut Vec<u8>, parts: &Parts) -> bool {
    let authority = parts.uri.authority().filter(|_| parts.version == http::Version::HTTP_2);
    authority.map(|authority| out.extend_from_slice(authority.as_str().as_bytes())).is_some()
}

fn write_host(out: &mut Vec<u8>, parts: &Parts) -> bool {
    host_field(parts).map(|host| out.extend_from_slice(host.as_bytes())).is_some()
}

fn write_field(out: &mut Vec<u8>, headers: &HeaderMap, name: &str, form: HeaderForm) -> bool {
    let mut first = true;
    for value in headers.get_all(name) {
        if !first {
            out.push(b',');
        }
        first = false;
        let mut blank = false;
        for &byte in value.as_bytes().trim_ascii() {
            let is_blank = byte == b' ' || byte == b'\t' && !form.keeps_tabs;
            match byte {
                _ if is_blank && blank => {}
                _ if is_blank => out.push(b' '),
                0x80.. if form.from_latin1 => {
                    out.extend_from_slice(char::from(byte).encode_utf8(&mut [0; 2]).as_bytes());
                }
                byte => out.push(byte),
            }
            blank = is_blank;
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
    fn fields_are_folded_as_each_signer_does_it() {
        let fold = |value: &[u8], keeps_tabs, from_latin1| {
            let mut headers = HeaderMap::new();
            headers.insert("x", http::HeaderValue::from_bytes(value).unwrap());
            let mut out = Vec::new();
            assert!(write_field(&mut out, &headers, "x", HeaderForm { keeps_tabs, from_latin1 }));
            out
        };
        assert_eq!(fold(b" a  b\t c\t\td ", false, false), b"a b c d");
        assert_eq!(fold(b" a  b\t c\t\td\t", true, false), b"a b\t c\t\td");
        assert_eq!(fold(b"\xe9", false, false), b"\xe9");
        assert_eq!(fold(b"\xe9", false, true), "\u{e9}".as_bytes());
        assert_eq!(fold("\u{e9}".as_bytes(), false, false), "\u{e9}".as_bytes());
        let forms = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("x", http::HeaderValue::from_bytes(value).unwrap());
            HeaderForm::of(&headers, ["x"].into_iter()).count()
        };
        assert_eq!((forms(b"a  b"), forms(b"a\tb"), forms(b"\xe9"), forms(b"\xe9\t")), (1, 2, 2, 4));
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
