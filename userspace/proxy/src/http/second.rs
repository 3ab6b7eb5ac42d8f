//! What h2 lets through of HTTP/2 that two readers could take in two ways, or that has no form in the HTTP/1.1 in which
//! it goes on (RFC 9113, 8).

use http::{Version, header::CONTENT_LENGTH, request::Parts};

use crate::http::violation::Violation;

/// Checks a request's head; those of HTTP/1.1 were checked byte for byte.
pub(crate) fn check(parts: &Parts) -> Result<(), Violation> {
    if parts.version != Version::HTTP_2 {
        return Ok(());
    }
    // `*` is for OPTIONS, which AWS has not.
    if !parts.uri.path().starts_with('/') {
        return Err(Violation("a :path that isn't one: the asterisk form is refused"));
    }
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        if lengths.next().is_some() {
            return Err(Violation("two content-length fields"));
        }
        let length = length.as_bytes();
        if length.is_empty() || length.len() > 18 || !length.iter().all(u8::is_ascii_digit) {
            return Err(Violation("content-length is not 1 to 18 digits"));
        }
    }
    Ok(())
}

/// Whether the length that a request announces is known to be true only at the end of its body: HTTP/2 has another end
/// than that, and what goes on over HTTP/1.1 is whole as soon as so many bytes are there.
pub(crate) fn has_two_ends(parts: &Parts) -> bool {
    parts.version == Version::HTTP_2 && parts.headers.contains_key(CONTENT_LENGTH)
}

/// As [`has_two_ends`], for one that is whole with its head.
pub(crate) fn announces_nothing(parts: &Parts) -> bool {
    has_two_ends(parts)
        && parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().iter().all(|digit| *digit == b'0'))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, target: &str, lengths: &[&str]) -> Parts {
        let mut request = Request::builder().version(version).method("GET").uri(target);
        for length in lengths {
            request = request.header(CONTENT_LENGTH, *length);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_has_no_single_reading_is_refused() {
        let check = |target: &str, lengths: &[&str]| check(&parts(Version::HTTP_2, target, lengths));
        check("https://a/", &[]).unwrap();
        check("https://a/b?c", &["5"]).unwrap();
        for (target, lengths) in [
            ("*", &[][..]),
            ("https://a/", &["5", "5"]),
            ("https://a/", &["0", "5"]),
            ("https://a/", &["5, 5"]),
            ("https://a/", &["+5"]),
            ("https://a/", &[""]),
        ] {
            check(target, lengths).expect_err(target);
        }
    }

    #[test]
    fn a_length_of_nothing_is_known_by_all_its_digits() {
        for (length, nothing) in [("0", true), ("000", true), ("1", false), ("10", false)] {
            assert_eq!(announces_nothing(&parts(Version::HTTP_2, "https://a/", &[length])), nothing, "{length}");
        }
        assert!(!announces_nothing(&parts(Version::HTTP_11, "/", &["0"])));
        assert!(!announces_nothing(&parts(Version::HTTP_2, "https://a/", &[])));
    }
}
