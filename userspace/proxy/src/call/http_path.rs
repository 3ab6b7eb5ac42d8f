//! The path of an inspected host's request, as policies see it: one spelling for all that a server takes for the same.

use std::borrow::Cow;

/// Why a path has no one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's path {0}")]
pub struct PathError(&'static str);

/// A path in its one spelling (RFC 3986, 6.2.2, and what servers do besides): characters that need no encoding are plain,
/// others are encoded in upper case; dot segments are resolved, and of several slashes one is left.
///
/// An encoded slash between two names is a slash, as package registries and GitLab have it: what is forbidden below a
/// folder is forbidden however the folder is written.
///
/// What servers take in different ways is refused: a backslash, an encoded slash beside dots or another slash, a control
/// character, a `;` with parameters, an encoded percent sign that a second decoding makes something else, dots that lead
/// above the root, text that is not UTF-8, a `%` without two digits. `*` stays as it is, for OPTIONS.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    let Some(rest) = path.strip_prefix('/') else { return Err(PathError("doesn't begin with `/`")) };
    if is_normal(rest) {
        return Ok(Cow::Borrowed(path));
    }
    let mut segments: Vec<String> = Vec::new();
    // Whether the path ends in a slash, or in dots, which stand for a folder.
    let mut folder = true;
    for raw in rest.split('/') {
        let segment = decoded(raw)?;
        folder = matches!(segment.as_str(), "" | "." | "..");
        match segment.as_str() {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(PathError("leads above its root"))?;
            }
            plain => segments.extend(plain.split('/').map(encoded)),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if folder || segments.is_empty() {
        normal.push('/');
    }
    Ok(Cow::Owned(normal))
}

/// Nearly every path: nothing in it is encoded, and no segment is empty or of dots.
fn is_normal(rest: &str) -> bool {
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if matches!(segment, "." | "..") || segment.is_empty() && !last || !segment.bytes().all(is_plain) {
            return false;
        }
    }
    true
}

/// What stands in a path without being encoded: RFC 3986's `pchar`, but for `;`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// A segment without its encoding.
fn decoded(segment: &str) -> Result<String, PathError> {
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (byte, width) = match bytes[at] {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
                let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or(PathError("has a `%` without two hexadecimal digits after it"))?, 3)
            }
            b';' => return Err(PathError("has a raw `;`, which begins parameters for some servers: write it `%3B`")),
            byte => (byte, 1),
        };
        match byte {
            b'\\' => return Err(PathError("has a backslash, which some servers take for a slash")),
            byte if byte.is_ascii_control() => return Err(PathError("has a control character")),
            byte => out.push(byte),
        }
        at += width;
    }
    let out = String::from_utf8(out).map_err(|_| PathError("is not UTF-8"))?;
    let again = |at: usize| out.as_bytes().get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if out.match_indices('%').any(|(at, _)| again(at)) {
        return Err(PathError("has an encoded `%`, which servers decode once or twice"));
    }
    if out.contains('/') && out.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(PathError("has an encoded slash beside dots or another slash, which servers take differently"));
    }
    Ok(out)
}

fn encoded(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_take_for_the_same_has_one_spelling() {
        for (path, normal) in [
            ("/admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("//admin", "/admin"),
            ("///admin//x", "/admin/x"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2e/admin", "/admin"),
            ("/x/.%2E/admin", "/admin"),
            ("/./admin", "/admin"),
            ("/%2e/admin/.", "/admin/"),
            ("/admin/", "/admin/"),
            ("/admin//", "/admin/"),
            ("/admin/x/..", "/admin/"),
            ("/", "/"),
            ("//", "/"),
            ("/x/..", "/"),
            ("/a%20b", "/a%20b"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/aé", "/a%C3%A9"),
            ("/a%7Eb%3b", "/a~b%3B"),
            ("/a b", "/a%20b"),
            ("/%3Fx", "/%3Fx"),
            ("/@scope%2fname", "/@scope/name"),
            ("/x/admin%2Fy/", "/x/admin/y/"),
            ("/100%25", "/100%25"),
            ("*", "*"),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(normal), "{path}");
            assert_eq!(normalize(normal).as_deref(), Ok(normal), "{normal}, once more");
        }
    }

    #[test]
    fn what_servers_take_differently_is_refused() {
        for path in [
            "",
            "admin",
            "/..",
            "/../admin",
            "/x/../../admin",
            "/%2Fadmin",
            "/x%2F",
            "/x%2F%2Fy",
            "/x%2F.%2Fadmin",
            "/x%2F../admin",
            "/x%2f..%2fadmin",
            "/x\\admin",
            "/x%5cadmin",
            "/%2561dmin",
            "/%25%361dmin",
            "/admin;x=y",
            "/;/admin",
            "/admin%00",
            "/admin%0a",
            "/%zz",
            "/%4",
            "/%",
            "/%+1",
            "/%C0%AE%C0%AE/admin",
            "/%ff",
        ] {
            assert!(normalize(path).is_err(), "{path}: {:?}", normalize(path));
        }
    }

    #[test]
    fn paths_that_are_normal_are_lent() {
        assert!(matches!(normalize("/a/b-c_d.e~/f@g:h"), Ok(Cow::Borrowed(_))));
    }
}
