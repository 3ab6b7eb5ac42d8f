//! What the policies may look at besides the call itself, and how Cedar sees it.

use jiff::{Timestamp, tz::TimeZone};
use time::OffsetDateTime;

use crate::inputs::Fact;

/// What the policies may look at besides the call itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallFacts<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Host the request is for.
    pub host: &'a str,
    /// Path, without the query.
    pub path: &'a str,
    /// The session's id.
    pub session: &'a str,
    /// The connecting process's executable.
    pub exe: &'a str,
    /// Its arguments.
    pub argv: &'a [String],
    /// The names of budgets that the call is over.
    pub over_budget: &'a [String],
    /// When the request's head had been read.
    pub at: Option<OffsetDateTime>,
    /// When the session began.
    pub session_started: Option<OffsetDateTime>,
    /// Length of the request's body in bytes, as its head says; `None` if it doesn't.
    pub body_bytes: Option<u64>,
    /// Whether the client says that it made the same request before.
    pub retry: bool,
    /// Names of the context's attributes that aren't known, as of a call that is read from a record that hasn't got them.
    pub unknown: &'a [&'a str],
}

/// How a context's attribute that isn't known is told to people.
pub(crate) const BODY_BYTES: &str = "body_bytes";

impl<'a> CallFacts<'a> {
    /// Attributes of the context that aren't known.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &'a str> + Clone {
        let body = self.body_bytes.is_none().then_some(BODY_BYTES);
        let at = self.at.is_none().then_some(["hour", "minute", "weekday", "date", "session_age"]);
        let age = (self.at.is_some() && self.session_started.is_none()).then_some("session_age");
        self.unknown.iter().copied().chain(body).chain(at.into_iter().flatten()).chain(age)
    }

    /// Attributes of the context that cost something to make, where `wanted`.
    pub(crate) fn made(&self, zone: &TimeZone, wanted: impl Fn(&str) -> bool) -> Vec<(&'static str, Fact)> {
        let mut made = Vec::new();
        let mut long = |name: &'static str, value: i64| {
            if wanted(name) {
                made.push((name, Fact::Long(value)));
            }
        };
        // Where one isn't known, no condition that is left looks at it.
        long(BODY_BYTES, self.body_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
        let age = self.at.zip(self.session_started).map_or(-1, |(at, began)| (at - began).whole_seconds().max(0));
        long("session_age", age);
        if ["hour", "minute", "weekday", "date"].iter().any(|name| wanted(name)) {
            let local = self.at.and_then(|at| Timestamp::from_second(at.unix_timestamp()).ok());
            let local = local.unwrap_or_default().to_zoned(zone.clone());
            for (name, value) in [("hour", local.hour()), ("minute", local.minute())] {
                if wanted(name) {
                    made.push((name, Fact::Long(value.into())));
                }
            }
            if wanted("weekday") {
                let day = format!("{:?}", local.weekday());
                made.push(("weekday", Fact::Text(day)));
            }
            if wanted("date") {
                made.push(("date", Fact::Text(local.date().to_string())));
            }
        }
        if wanted("retry") {
            made.push(("retry", Fact::Truth(self.retry)));
        }
        if wanted("arguments") {
            made.push(("arguments", Fact::Text(self.argv.join(" "))));
        }
        made
    }
}

/// The length of a request's body, by its head's fields: of an aws-chunked one its payload's. `None` if they don't say,
/// as HTTP/2's needn't.
pub fn body_bytes<'a>(version: &str, field: impl Fn(&str) -> Option<&'a str>) -> Option<u64> {
    if let Some(decoded) = field("x-amz-decoded-content-length") {
        return decoded.parse().ok();
    }
    match (field("content-length"), field("transfer-encoding")) {
        (Some(length), None) => length.parse().ok(),
        // A request without either has no body (RFC 9112, 6.3).
        (None, None) if version == "HTTP/1.1" => Some(0),
        _ => None,
    }
}

/// Whether the client says that it made the same request before: SDKs count their attempts.
pub fn is_retry<'a>(field: impl Fn(&str) -> Option<&'a str>) -> bool {
    let attempts = field("amz-sdk-request").into_iter().flat_map(|text| text.split(';'));
    attempts.filter_map(|part| part.trim().strip_prefix("attempt=")).any(|number| number != "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_lengths_and_retries() {
        let of = |fields: &'static [(&'static str, &'static str)]| {
            move |name: &str| fields.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
        };
        let length = |fields| body_bytes("HTTP/1.1", of(fields));
        assert_eq!(length(&[("content-length", "5")]), Some(5));
        assert_eq!(length(&[("content-length", "90"), ("x-amz-decoded-content-length", "7")]), Some(7));
        assert_eq!((length(&[]), body_bytes("HTTP/2.0", of(&[]))), (Some(0), None));
        for unknown in [&[("content-length", "x")][..], &[("content-length", "5"), ("transfer-encoding", "chunked")]] {
            assert_eq!(length(unknown), None);
        }
        assert!(is_retry(of(&[("amz-sdk-request", "ttl=20260101T000000Z; attempt=2; max=3")])));
        for first in [&[][..], &[("amz-sdk-request", "attempt=1; max=3")], &[("amz-sdk-request", "attempts=2")]] {
            assert!(!is_retry(of(first)));
        }
    }

    fn made(facts: &CallFacts<'_>, zone: &str) -> Vec<String> {
        let zone = TimeZone::get(zone).unwrap();
        facts.made(&zone, |_| true).iter().map(|(name, value)| format!("{name}={value:?}")).collect()
    }

    #[test]
    fn the_time_is_that_of_the_zone_on_both_sides_of_a_change_of_clocks() {
        // 01:30 UTC on the last Sunday of October 2026, when clocks in Berlin have just gone back, and an hour before.
        for (second, zone, wanted) in [
            (1_792_891_800, "Europe/Berlin", ["hour", "2", "minute", "30", "Sunday", "2026-10-25"]),
            (1_792_888_200, "Europe/Berlin", ["hour", "2", "minute", "30", "Sunday", "2026-10-25"]),
            (1_792_891_800, "America/New_York", ["hour", "21", "minute", "30", "Saturday", "2026-10-24"]),
            (1_792_891_800, "UTC", ["hour", "1", "minute", "30", "Sunday", "2026-10-25"]),
        ] {
            let at = Some(OffsetDateTime::from_unix_timestamp(second).unwrap());
            let all = made(&CallFacts { at, ..CallFacts::default() }, zone).join(" ");
            for part in wanted {
                assert!(all.contains(part), "{part} in {zone}: {all}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        let all = |facts: CallFacts<'_>| facts.unknown().map(str::to_owned).collect::<Vec<_>>();
        let at = Some(OffsetDateTime::UNIX_EPOCH);
        assert_eq!(all(CallFacts { at, session_started: at, body_bytes: Some(1), ..CallFacts::default() }), [""; 0]);
        assert_eq!(all(CallFacts { at, session_started: at, ..CallFacts::default() }), [BODY_BYTES]);
        let lost = CallFacts { at, body_bytes: Some(1), unknown: &["over_budget"], ..CallFacts::default() };
        assert_eq!(all(lost), ["over_budget", "session_age"]);
        // A clock that was set back makes no session younger than it is.
        let facts = CallFacts { at, session_started: at.map(|at| at + time::Duration::HOUR), ..CallFacts::default() };
        assert!(made(&facts, "UTC").iter().any(|one| one.contains("session_age") && one.contains('0')));
    }
}
