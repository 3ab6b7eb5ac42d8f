//! What tells secrets from texts that only look like some.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Shannon's entropy over bytes, in bits a byte.
pub(super) fn entropy(text: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    for byte in text.iter().take(4096) {
        counts[usize::from(*byte)] += 1;
    }
    let all = f32::from(u16::try_from(text.len().min(4096)).unwrap_or(u16::MAX));
    let of = |count: u16| {
        let share = f32::from(count) / all;
        -share * share.log2()
    };
    counts.into_iter().filter(|count| *count > 0).map(of).sum()
}

/// Words that stand where a secret would, in documentation and templates.
pub(super) fn is_stand_in(text: &[u8]) -> bool {
    const BEGINS: [&[u8]; 9] = [b"$", b"{", b"<", b"%", b"*", b"[", b"xxxx", b"XXXX", b"..."];
    const IS: [&str; 12] = [
        "password",
        "passwd",
        "pass",
        "secret",
        "changeme",
        "redacted",
        "your_password",
        "your-password",
        "yourpassword",
        "pwd",
        "hidden",
        "masked",
    ];
    BEGINS.iter().any(|begin| text.starts_with(begin))
        || text.starts_with(b"chaperone-masked")
        || IS.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
        || text.iter().all(|b| *b == text[0])
}

/// Digits, lower-case and upper-case letters: how many of the three are there.
pub(super) fn sorts(text: &[u8]) -> usize {
    [u8::is_ascii_digit as fn(&u8) -> bool, u8::is_ascii_lowercase, u8::is_ascii_uppercase]
        .iter()
        .filter(|is| text.iter().any(is))
        .count()
}

/// Whether the first part of a JWT is what it must be: an object that names an algorithm.
pub(super) fn is_jwt_header(part: &[u8]) -> bool {
    let Ok(header) = URL_SAFE_NO_PAD.decode(part) else { return false };
    let Ok(serde_json::Value::Object(header)) = serde_json::from_slice(&header) else { return false };
    header.get("alg").is_some_and(serde_json::Value::is_string)
}

/// Luhn's checksum (ISO/IEC 7812-1, annex B).
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0');
            match at % 2 {
                0 => digit,
                _ if digit > 4 => digit * 2 - 9,
                _ => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether an issuer has numbers of this length that begin so.
pub(super) fn is_issued(digits: &[u8]) -> bool {
    let number = |length: usize| digits[..length].iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let (two, four) = (number(2), number(4));
    match digits.len() {
        13 | 19 => digits[0] == b'4',
        14 => matches!(two, 36 | 38 | 39) || matches!(number(3), 300..=305),
        15 => matches!(two, 34 | 37),
        16 => digits[0] == b'4' || matches!(two, 51..=55 | 65 | 35) || matches!(four, 2221..=2720 | 6011 | 6500..=6599),
        _ => false,
    }
}
