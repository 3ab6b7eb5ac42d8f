//! Paths of customers' own endpoints, as resources name them. How much of a path such an endpoint decodes and tidies up is
//! known for none of them: where that makes a difference, a call needs leave for each reading.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::decode_error::DecodeError;

const UNCLEAR: DecodeError = DecodeError::Path("a path that could be read in two ways");

/// What a path may stand for: decoded, first of all; and as it is, decoded again, or without its empty segments, where that
/// is something else. Refused is what has no use but to look like something else: encoded letters and digits, dot
/// segments, control characters.
pub(crate) fn readings(path: &str) -> Result<Vec<String>, DecodeError> {
    if path.match_indices('%').any(|(at, _)| code(path, at).is_none()) {
        return Err(UNCLEAR);
    }
    let once = each(path, decoded)?;
    let mut all = vec![once.clone()];
    let mut add = |reading: String| {
        if !all.contains(&reading) {
            all.push(reading);
        }
    };
    // A `%` that was encoded, and what needn't have been.
    if has_code(path, |byte| b"-._~%".contains(&byte)) {
        add(path.to_owned());
    }
    if has_code(&once, |_| true) {
        let twice = each(&once, decoded)?;
        // One more, and another path would be behind each.
        if has_code(&twice, |_| true) || twice.matches('/').count() != once.matches('/').count() {
            return Err(UNCLEAR);
        }
        add(twice);
    }
    for reading in all.clone() {
        let tidy = tidied(&reading);
        if !all.contains(&tidy) {
            all.push(tidy);
        }
    }
    Ok(all)
}

/// The one reading of a path that has no other.
pub(crate) fn clear_path(path: &str) -> Result<String, DecodeError> {
    let mut all = readings(path)?;
    if all.len() == 1 { Ok(all.swap_remove(0)) } else { Err(UNCLEAR) }
}

fn each<'a>(
    path: &'a str,
    change: impl Fn(&'a str) -> Result<Cow<'a, str>, DecodeError>,
) -> Result<String, DecodeError> {
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').skip(1) {
        out.push('/');
        out.push_str(&change(segment)?);
    }
    Ok(out)
}

fn decoded(segment: &str) -> Result<Cow<'_, str>, DecodeError> {
    // Letters and digits have no need to be encoded, save to look like something else.
    if segment.match_indices('%').any(|(at, _)| code(segment, at).is_some_and(|byte| byte.is_ascii_alphanumeric())) {
        return Err(UNCLEAR);
    }
    let plain = percent_decode_str(segment).decode_utf8().map_err(|_| UNCLEAR)?;
    let dots = plain.split(['/', '\\']).any(|part| matches!(part, "." | ".."));
    if dots || plain.contains(char::is_control) { Err(UNCLEAR) } else { Ok(plain) }
}

/// The byte that is encoded at a `%`.
fn code(text: &str, at: usize) -> Option<u8> {
    let digits = text.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

fn has_code(text: &str, wanted: impl Fn(u8) -> bool) -> bool {
    text.match_indices('%').any(|(at, _)| code(text, at).is_some_and(&wanted))
}

/// Without empty segments, but for the last: that is a slash at the end.
fn tidied(path: &str) -> String {
    let mut segments = path.split('/').skip(1).peekable();
    let mut out = String::with_capacity(path.len());
    while let Some(segment) = segments.next() {
        if !segment.is_empty() || segments.peek().is_none() {
            out.push('/');
            out.push_str(segment);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_all_its_readings() {
        for (path, expected) in [
            ("/", &["/"][..]),
            ("/a/b/", &["/a/b/"]),
            ("/a%20b/%E2%82%AC", &["/a b/\u{20ac}"]),
            ("/a%2Cb", &["/a,b"]),
            ("/@scope%2Fthing", &["/@scope/thing"]),
            ("/a%7Eb", &["/a~b", "/a%7Eb"]),
            ("/a%2Db/c", &["/a-b/c", "/a%2Db/c"]),
            ("/v1%2E2", &["/v1.2", "/v1%2E2"]),
            ("/100%25", &["/100%", "/100%25"]),
            ("/a%2520b", &["/a%20b", "/a%2520b", "/a b"]),
            ("/a//b", &["/a//b", "/a/b"]),
            ("//a/", &["//a/", "/a/"]),
            ("/a%7E//b", &["/a~//b", "/a%7E//b", "/a~/b", "/a%7E/b"]),
        ] {
            assert_eq!(readings(path).unwrap(), expected, "{path}");
            assert_eq!(clear_path(path).is_ok(), expected.len() == 1, "{path}");
        }
    }

    #[test]
    fn what_hides_something_has_none() {
        for path in [
            "/%61dmin",
            "/..",
            "/%2e%2e/admin",
            "/%2E",
            "/a%2F..%2Fadmin",
            "/a%5C..%5Cb",
            "/%00",
            "/%zz",
            "/a%",
            "/%ff",
            "/%2561",
            "/%252e%252e/a",
            "/a%252Fb",
            "/a%25252Fb",
            "/%2500",
        ] {
            assert!(readings(path).is_err(), "{path}: {:?}", readings(path));
        }
    }
}
