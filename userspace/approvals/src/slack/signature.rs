//! Slack's signature of its requests: <https://docs.slack.dev/authentication/verifying-requests-from-slack>

use aws_lc_rs::hmac;

use super::FRESH;

/// Holds a request against the signing secret and the clock, in seconds since 1970.
pub(super) fn check(key: &hmac::Key, moment: &str, signed: &str, body: &[u8], now: i64) -> Result<(), &'static str> {
    let seconds: i64 = moment.parse().map_err(|_| "x-slack-request-timestamp is no time")?;
    if now.abs_diff(seconds) > FRESH.as_secs() {
        return Err("it is too old, or the clocks differ by more than five minutes");
    }
    let wrong = "the signature isn't one of Slack's for this app";
    let digest = signed.strip_prefix("v0=").and_then(unhex).ok_or(wrong)?;
    let message = [b"v0:", moment.as_bytes(), b":", body].concat();
    hmac::verify(key, &message, &digest).map_err(|_| wrong)
}

/// 32 bytes in lower case hexadecimal.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |it: u8| match it {
        b'0'..=b'9' => Some(it - b'0'),
        b'a'..=b'f' => Some(it - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Slack's own documentation.
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                        channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                        response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
                        trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    const MOMENT: i64 = 1_531_420_618;

    fn key(secret: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
    }

    #[test]
    fn the_documented_example_is_right_for_five_minutes() {
        let key = key("8f742231b10e8888abcd99yyyzzz85a5");
        let at = |now: i64| check(&key, "1531420618", SIGNATURE, BODY.as_bytes(), now);
        for now in [MOMENT - 300, MOMENT, MOMENT + 300] {
            assert_eq!(at(now), Ok(()));
        }
        assert!(at(MOMENT + 301).is_err() && at(MOMENT - 301).is_err());
    }

    #[test]
    fn everything_else_is_forged() {
        let right = key("8f742231b10e8888abcd99yyyzzz85a5");
        let other = format!("{BODY}x");
        for (key, moment, signed, body) in [
            (&key("another"), "1531420618", SIGNATURE, BODY),
            (&right, "1531420619", SIGNATURE, BODY),
            (&right, "01531420618", SIGNATURE, BODY),
            (&right, "", SIGNATURE, BODY),
            (&right, "1531420618", SIGNATURE, &*other),
            (&right, "1531420618", &SIGNATURE[..66], BODY),
            (&right, "1531420618", &SIGNATURE[3..], BODY),
            (&right, "1531420618", &SIGNATURE.replace("v0", "v1"), BODY),
            (&right, "1531420618", &SIGNATURE.to_uppercase(), BODY),
            (&right, "1531420618", "v0=", BODY),
            (&right, "1531420618", "v0=ääääääääääääääääääääääääääääääää", BODY),
        ] {
            assert!(check(key, moment, signed, body.as_bytes(), MOMENT).is_err(), "{moment} {signed}");
        }
        assert!(check(&right, "9223372036854775807", SIGNATURE, BODY.as_bytes(), i64::MIN).is_err());
    }
}
