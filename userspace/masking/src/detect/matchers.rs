//! What is looked at behind the letters that a kind of secret begins with.

use super::check;

/// The longest private key, armoured: PGP's with many subkeys are a few ten thousand bytes.
const MAX_PEM: usize = 128 * 1024;
const MAX_JWT: usize = 16 * 1024;
const MAX_USER: usize = 128;
const MAX_PASSWORD: usize = 256;
/// What may stand between a name and its value: `": "`, ` = '`, `</Key><Value>`.
const MAX_BETWEEN: usize = 24;

/// What a matcher makes of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    No,
    /// It depends on what follows.
    More,
    /// From where to where.
    Hit(usize, usize),
}

/// Bytes that a token consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Letters and digits.
    Alnum,
    /// RFC 4648's base32, upper case.
    Base32,
    /// Base64 of either alphabet, with padding.
    Base64,
    /// Letters, digits, and colons between parts.
    Colon,
    /// Base64 as it stands in a cookie.
    Cookie,
    /// Hexadecimal digits, lower case.
    Hex,
    /// Base64 with padding, in parts that commas join.
    List,
    /// Letters, digits, `-`, `_`, `.`, `~` and `=`.
    Loose,
    /// What a session's id of Salesforce's consists of.
    Session,
    /// Upper-case letters and digits.
    UpperAlnum,
    /// Letters, digits, `-` and `_`.
    Url,
    /// The same with dots.
    Dotted,
}

impl Class {
    pub(super) fn has(self, byte: u8) -> bool {
        match self {
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Base32 => matches!(byte, b'A'..=b'Z' | b'2'..=b'7'),
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_'),
            Self::Colon => byte.is_ascii_alphanumeric() || byte == b':',
            Self::Cookie => Self::Base64.has(byte) || byte == b'%',
            Self::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            Self::List => Self::Base64.has(byte) || byte == b',',
            Self::Session => Self::Dotted.has(byte) || byte == b'!',
            Self::Loose => Self::Dotted.has(byte) || matches!(byte, b'~' | b'='),
            Self::UpperAlnum => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
        }
    }
}

/// How a kind of secret goes on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Matcher {
    /// So many bytes of a class, and none more; of at least so much entropy. Only what follows is masked if `inner`.
    Token {
        class: Class,
        min: usize,
        max: usize,
        bits: f32,
        inner: bool,
    },
    /// A value behind a name, to the next separator.
    Assigned,
    /// Forty characters of base64 behind a name that says what they are.
    AwsSecret,
    /// The same of an Azure storage account's key.
    AzureKey,
    Jwt,
    Pem,
    /// A URL's password.
    Url,
    /// A path that whoever knows it may post to.
    Webhook,
    /// Not by letters.
    Cards,
}

impl Matcher {
    pub(super) fn look(self, text: &[u8], start: usize, end: usize, last: bool) -> Verdict {
        match self {
            Self::Token { class, min, max, bits, inner } => {
                let rest = &text[end..];
                let length = rest.iter().take(max + 1).take_while(|b| class.has(**b)).count();
                if length == rest.len() && length <= max && !last {
                    return Verdict::More;
                }
                // A sentence's end is no part of it.
                let body = match class {
                    Class::Dotted | Class::Session | Class::Loose => trim(&rest[..length], b'.'),
                    _ => &rest[..length],
                };
                // Behind it stands no letter, in whichever class.
                let word = rest.get(length).is_some_and(u8::is_ascii_alphanumeric) && length <= max;
                if body.len() < min || length > max || word || check::entropy(body) < bits {
                    return Verdict::No;
                }
                Verdict::Hit(if inner { end } else { start }, end + body.len())
            }
            Self::Assigned => assigned(text, end, last),
            Self::AwsSecret => named_base64(text, end, last, 40, 3.5),
            // 64 bytes.
            Self::AzureKey => named_base64(text, end, last, 88, 4.0),
            Self::Jwt => jwt(text, start, last),
            Self::Pem => pem(text, end, last),
            Self::Url => url(text, end, last),
            Self::Webhook => webhook(text, end, last),
            Self::Cards => Verdict::No,
        }
    }
}

/// The path of a webhook, in two parts or more.
fn webhook(text: &[u8], end: usize, last: bool) -> Verdict {
    const MAX: usize = 256;
    let is = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'@' | b'+');
    let length = text[end..].iter().take(MAX + 1).take_while(|b| is(b)).count();
    if length == text.len() - end && !last && length <= MAX {
        return Verdict::More;
    }
    let path = &text[end..end + length];
    if (30..=MAX).contains(&length) && path.contains(&b'/') && check::entropy(path) > 3.0 {
        Verdict::Hit(end, end + length)
    } else {
        Verdict::No
    }
}

fn trim(text: &[u8], byte: u8) -> &[u8] {
    let end = text.iter().rposition(|b| *b != byte).map_or(0, |at| at + 1);
    &text[..end]
}

fn assigned(text: &[u8], end: usize, last: bool) -> Verdict {
    let is = |b: &u8| !matches!(b, b';' | b'"' | b'\'' | b'&' | b'<' | b'>' | b'\\') && !b.is_ascii_whitespace();
    let length = text[end..].iter().take(MAX_PASSWORD + 1).take_while(|b| is(b)).count();
    if length == text.len() - end && length <= MAX_PASSWORD && !last {
        return Verdict::More;
    }
    let value = &text[end..end + length];
    if value.len() < 3 || length > MAX_PASSWORD || check::is_stand_in(value) {
        return Verdict::No;
    }
    Verdict::Hit(end, end + length)
}

/// So many characters of base64 behind a name that ends in what has been read or in `key`.
fn named_base64(text: &[u8], end: usize, last: bool, wanted: usize, bits: f32) -> Verdict {
    let rest = &text[end..];
    // The name may go on: `secret_access_key`, `SecretKey`, `secretAccessKey`.
    let name = rest.iter().take(24).take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')).count();
    let is_between = |b: &u8| {
        matches!(b, 9..=13 | b' ' | b'"' | b'\'' | b'`' | b'=' | b':' | b'>' | b',' | b'(' | b'|' | b'?' | b'\\')
    };
    let between = rest[name..].iter().take(MAX_BETWEEN).take_while(|b| is_between(b)).count();
    let from = name + between;
    let class = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    let length = rest[from..].iter().take(wanted + 1).take_while(|b| class(b)).count();
    if from + length == rest.len() && length <= wanted && !last {
        return Verdict::More;
    }
    let name = rest[..name].to_ascii_lowercase();
    let named = name.ends_with(b"key") || name.is_empty();
    let value = &rest[from..from + length];
    if !named || between == 0 || length != wanted || check::sorts(value) < 3 || check::entropy(value) < bits {
        return Verdict::No;
    }
    Verdict::Hit(end + from, end + from + length)
}

fn jwt(text: &[u8], start: usize, last: bool) -> Verdict {
    let mut at = start;
    let mut parts = [0; 3];
    for (number, end) in parts.iter_mut().enumerate() {
        let rest = &text[at..];
        let length = rest.iter().take(MAX_JWT + 1).take_while(|b| Class::Url.has(**b)).count();
        if length == rest.len() && at + length - start <= MAX_JWT && !last {
            return Verdict::More;
        }
        if length > MAX_JWT {
            return Verdict::No;
        }
        *end = at + length;
        if number < 2 {
            if text.get(*end) != Some(&b'.') || length < 10 {
                return Verdict::No;
            }
            at = *end + 1;
        }
    }
    // Tokens without a signature end with the dot.
    if check::is_jwt_header(&text[start..parts[0]]) { Verdict::Hit(start, parts[2]) } else { Verdict::No }
}

/// `end` is behind `-----BEGIN `. What is masked is what is between the two lines.
fn pem(text: &[u8], end: usize, last: bool) -> Verdict {
    const DASHES: &[u8] = b"-----";
    let rest = &text[end..];
    let title =
        rest.iter().take(64).take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || **b == b' ').count();
    if rest.len() < title + DASHES.len() && !last {
        return if title < 64 { Verdict::More } else { Verdict::No };
    }
    if !rest[title..].starts_with(DASHES) || memchr::memmem::find(&rest[..title], b"PRIVATE KEY").is_none() {
        return Verdict::No;
    }
    let body = title + DASHES.len();
    let is = |b: &u8| {
        b.is_ascii_alphanumeric()
            || b.is_ascii_whitespace()
            || matches!(b, b'+' | b'/' | b'=' | b'\\' | b':' | b',' | b'.')
            || *b == b'-'
    };
    let reach = rest.len().min(body + MAX_PEM);
    let closing = memchr::memmem::find(&rest[body..reach], b"-----END");
    let length = match closing {
        Some(length) => length,
        // Its end is missing: all that may be of it.
        None => rest[body..reach].iter().take_while(|b| is(b)).count(),
    };
    if closing.is_none() && body + length == rest.len() && !last {
        return Verdict::More;
    }
    let key = rest[body..body + length].iter().filter(|b| b.is_ascii_alphanumeric()).count();
    if key < 32 || !rest[body..body + length].iter().all(is) {
        return Verdict::No;
    }
    // The line's end before and after stays.
    let line = |b: &u8| b.is_ascii_whitespace();
    let first = rest[body..body + length].iter().take_while(|b| line(b)).count();
    let behind = rest[body..body + length].iter().rev().take_while(|b| line(b)).count();
    Verdict::Hit(end + body + first, end + body + length - behind)
}

/// `end` is behind `://`.
fn url(text: &[u8], end: usize, last: bool) -> Verdict {
    let rest = &text[end..];
    let stops = |b: u8| {
        b.is_ascii_whitespace()
            || b.is_ascii_control()
            || matches!(b, b'/' | b'"' | b'\'' | b'<' | b'>' | b'@' | b'\\' | b'?' | b'#' | b'`')
    };
    let user = rest.iter().take(MAX_USER + 1).take_while(|b| !stops(**b) && **b != b':').count();
    if user > MAX_USER {
        return Verdict::No;
    }
    match rest.get(user) {
        Some(b':') => {}
        None if !last => return Verdict::More,
        _ => return Verdict::No,
    }
    let from = user + 1;
    // Passwords have `/`, `?` and `#` in them where nobody escaped them; then an `@` must still come before a space.
    let ends = |b: u8| {
        b.is_ascii_whitespace() || b.is_ascii_control() || matches!(b, b'"' | b'\'' | b'<' | b'>' | b'@' | b'\\' | b'`')
    };
    let length = rest[from..].iter().take(MAX_PASSWORD + 1).take_while(|b| !ends(**b)).count();
    if length > MAX_PASSWORD {
        return Verdict::No;
    }
    match rest.get(from + length) {
        Some(b'@') => {}
        None if !last => return Verdict::More,
        _ => return Verdict::No,
    }
    let password = &rest[from..from + length];
    // A port, and an `@` somewhere behind: `https://host:443/@scope`.
    let port = password.iter().take_while(|b| b.is_ascii_digit()).count();
    let is_port = port > 0 && port <= 5 && password.get(port) == Some(&b'/');
    // What stands between the parts of a URL in an expression for URLs is no password.
    let is_word = password.iter().any(u8::is_ascii_alphanumeric) || password.iter().any(|b| !b.is_ascii());
    if length < 2 || !is_word || is_port || check::is_stand_in(password) {
        return Verdict::No;
    }
    Verdict::Hit(end + from, end + from + length)
}

/// Card numbers: 13 to 19 digits by themselves, or in the usual groups.
pub(super) fn cards(
    text: &[u8],
    before: Option<u8>,
    last: bool,
    safe: usize,
    mut hit: impl FnMut(usize, usize),
) -> usize {
    const REACH: usize = 19 + 5;
    let mut at = 0;
    while let Some(start) = text[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) {
        let previous = if start == 0 { before } else { Some(text[start - 1]) };
        let (mut digits, mut length, mut end) = ([0; 20], 0, start);
        let (mut separator, mut group) = (None, 0);
        for (offset, byte) in text[start..].iter().take(REACH + 1).enumerate() {
            match byte {
                b'0'..=b'9' if length < digits.len() => {
                    digits[length] = *byte;
                    length += 1;
                    group += 1;
                    end = start + offset + 1;
                }
                // Groups of four, or of four, six and what is left.
                b' ' | b'-'
                    if separator.is_none_or(|it| it == *byte)
                        && end == start + offset
                        && (group == 4 || group == 6 && length == 10) =>
                {
                    separator = Some(*byte);
                    group = 0;
                }
                _ => break,
            }
        }
        if !last && text.len() - start <= REACH {
            return safe.min(start);
        }
        let alone = previous.is_none_or(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'.' | b'-' | b'_'))
            && text.get(end).is_none_or(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'_'));
        let digits = &digits[..length];
        if alone && (13..=19).contains(&length) && check::is_issued(digits) && check::luhn(digits) {
            hit(start, end);
        }
        at = end.max(start + 1);
    }
    safe
}
