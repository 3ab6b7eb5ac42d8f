//! Objects of S3 in which secrets are masked: one object, whether its head is asked for, a part or all of it.
//!
//! What detectors find in them is written over by as many bytes, so that lengths and places stay. A part is read with so
//! much around it that no secret is cut, and cut back. The entity tag has a mark, and conditions with it are asked
//! without: it is another representation than AWS's, whose digest the tag may be.

use bytes::Bytes;
use chaperone_model::Call;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE},
    response,
};

/// What a masked object's entity tag ends in.
const MARK: &str = "-masked";
/// Further than a secret of the detectors' reaches: a private key between PEM's lines, with what is before it.
const REACH: u64 = 192 << 10;

/// An object that is asked for, in which secrets are masked.
#[derive(Debug)]
pub(crate) struct StoredObject {
    wanted: Option<Wanted>,
}

/// The part that the agent asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    From(u64, Option<u64>),
    Last(u64),
}

/// What of a body goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    skip: u64,
    take: u64,
}

/// What becomes of a part that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Cut(Cut),
    /// There is no such part: this is the answer.
    None(Bytes),
}

impl StoredObject {
    /// Prepares the request for one; with `widen`, for more than the part that is asked for. `None` for all other calls.
    pub(crate) fn of(call: &Call, headers: &mut HeaderMap, widen: bool) -> Option<Self> {
        if call.service != "s3" || !matches!(&*call.operation, "GetObject" | "HeadObject") {
            return None;
        }
        for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE] {
            let Some(value) = headers.get(&name).and_then(|value| value.to_str().ok()) else { continue };
            if let Ok(value) = HeaderValue::from_str(&value.replace(MARK, "")) {
                headers.insert(name, value);
            }
        }
        let wanted = if widen { wanted(headers) } else { None };
        if let Some(wider) = wanted.and_then(|wanted| HeaderValue::from_str(&wanted.wider()).ok()) {
            headers.insert(RANGE, wider);
        }
        Some(Self { wanted })
    }

    /// Says in an answer's head that it is another representation than AWS's.
    pub(crate) fn mark(headers: &mut HeaderMap) {
        let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        let marked = tag.map(|tag| match tag.strip_suffix('"') {
            Some(rest) => format!("{rest}{MARK}\""),
            None => format!("{tag}{MARK}"),
        });
        if let Some(marked) = marked.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
            headers.insert(ETAG, marked);
        }
        let sums: Vec<HeaderName> = headers.keys().filter(|name| is_checksum(name)).cloned().collect();
        for name in sums {
            headers.remove(name);
        }
    }

    /// What goes on of a part that AWS has answered with; the head is that of what goes on.
    pub(crate) fn part(&self, head: &mut response::Parts) -> Option<Part> {
        let wanted = self.wanted?;
        let (first, last, total) = content_range(&head.headers)?;
        let Some((from, to)) = wanted.within(total) else {
            head.status = StatusCode::RANGE_NOT_SATISFIABLE;
            head.headers.insert(CONTENT_RANGE, HeaderValue::from_str(&format!("bytes */{total}")).ok()?);
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            head.headers.remove(ETAG);
            let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidRange</Code><Message>The requested \
                        range is not satisfiable</Message></Error>";
            return Some(Part::None(Bytes::from_static(body.as_bytes())));
        };
        if first > from || to > last {
            return None;
        }
        let take = to - from + 1;
        let range = format!("bytes {from}-{to}/{total}");
        head.headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).ok()?);
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(take));
        Some(Part::Cut(Cut { skip: from - first, take }))
    }
}

/// Whether a field is a digest of the body.
fn is_checksum(name: &HeaderName) -> bool {
    matches!(name.as_str(), "content-md5" | "digest" | "content-digest" | "repr-digest")
        || name.as_str().starts_with("x-amz-checksum-")
}

/// The one part that a request asks for.
fn wanted(headers: &HeaderMap) -> Option<Wanted> {
    let text = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (from, to) = text.split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (from, to) {
        ("", last) => Some(Wanted::Last(number(last)?)),
        (from, "") => Some(Wanted::From(number(from)?, None)),
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            (from <= to).then_some(Wanted::From(from, Some(to)))
        }
    }
}

/// First and last byte, and how many there are in all.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.parse().ok()?))
}

impl Wanted {
    /// The part with what is around it.
    fn wider(self) -> String {
        match self {
            Self::From(from, None) => format!("bytes={}-", from.saturating_sub(REACH)),
            Self::From(from, Some(to)) => format!("bytes={}-{}", from.saturating_sub(REACH), to.saturating_add(REACH)),
            Self::Last(count) => format!("bytes=-{}", count.saturating_add(REACH)),
        }
    }

    /// First and last byte in so many; `None` if there are none.
    fn within(self, total: u64) -> Option<(u64, u64)> {
        let last = total.checked_sub(1)?;
        match self {
            Self::From(from, to) => (from <= last).then(|| (from, to.unwrap_or(last).min(last))),
            Self::Last(0) => None,
            Self::Last(count) => Some((total.saturating_sub(count), last)),
        }
    }
}

impl Cut {
    /// What goes on of the next bytes.
    pub(crate) fn of(&mut self, bytes: &Bytes) -> Bytes {
        let length = bytes.len() as u64;
        let skip = self.skip.min(length);
        let take = self.take.min(length - skip);
        self.skip -= skip;
        self.take -= take;
        let at = |position: u64| usize::try_from(position).unwrap_or(bytes.len());
        bytes.slice(at(skip)..at(skip + take))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: &str) -> Call {
        let call = serde_json::json!({
            "partition": "aws", "region": null, "account": null, "service": "s3", "signing_name": "s3",
            "operation": operation, "protocol": "rest-xml", "actions": [], "resources": [], "payload": "none",
        });
        serde_json::from_value(call).unwrap()
    }

    fn asked(range: &str) -> (Option<StoredObject>, String) {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        let object = StoredObject::of(&call("GetObject"), &mut headers, true);
        (object, headers[RANGE].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_part_is_read_with_what_is_around_it_and_cut_back() {
        let reach = REACH;
        for (range, wider, first, last, part) in [
            ("bytes=10-19", format!("bytes=0-{}", 19 + reach), 0, 999_999, Some((10, 10, "bytes 10-19/1000000"))),
            (
                "bytes=300000-300001",
                format!("bytes={}-{}", 300_000 - reach, 300_001 + reach),
                300_000 - reach,
                300_001 + reach,
                Some((reach, 2, "bytes 300000-300001/1000000")),
            ),
            (
                "bytes=999999-",
                format!("bytes={}-", 999_999 - reach),
                999_999 - reach,
                999_999,
                Some((reach, 1, "bytes 999999-999999/1000000")),
            ),
            (
                "bytes=-5",
                format!("bytes=-{}", 5 + reach),
                1_000_000 - 5 - reach,
                999_999,
                Some((reach, 5, "bytes 999995-999999/1000000")),
            ),
            (
                "bytes=0-9999999",
                format!("bytes=0-{}", 9_999_999 + reach),
                0,
                999_999,
                Some((0, 1_000_000, "bytes 0-999999/1000000")),
            ),
            ("bytes=1000000-", format!("bytes={}-", 1_000_000 - reach), 1_000_000 - reach, 999_999, None),
        ] {
            let (object, asked) = asked(range);
            assert_eq!(asked, wider, "{range}");
            let mut head = http::Response::builder().status(206).body(()).unwrap().into_parts().0;
            head.headers.insert(CONTENT_RANGE, format!("bytes {first}-{last}/1000000").parse().unwrap());
            match (object.unwrap().part(&mut head), part) {
                (Some(Part::Cut(cut)), Some((skip, take, said))) => {
                    assert_eq!(cut, Cut { skip, take }, "{range}");
                    assert_eq!(head.headers[CONTENT_RANGE], said);
                    assert_eq!(head.headers[CONTENT_LENGTH], take.to_string().as_str());
                }
                (Some(Part::None(body)), None) => {
                    assert!(head.status == 416 && head.headers[CONTENT_RANGE] == "bytes */1000000");
                    assert!(body.starts_with(b"<?xml"));
                }
                (got, _) => panic!("{range}: {got:?}"),
            }
        }
        let mut cut = Cut { skip: 5, take: 4 };
        let given: Vec<Bytes> = ["abc", "defg", "hijk", "l"].map(|it| cut.of(&Bytes::from(it))).to_vec();
        assert_eq!(given.concat(), b"fghi");
    }

    #[test]
    fn what_is_no_single_part_stays_as_it_is() {
        for range in ["bytes=0-1,5-6", "bytes=5-1", "bytes=+1-2", "bytes=", "lines=1-2", "bytes=99999999999999999999-"]
        {
            let (object, asked) = asked(range);
            assert_eq!(asked, range);
            let mut head = http::Response::builder().status(206).body(()).unwrap().into_parts().0;
            head.headers.insert(CONTENT_RANGE, "bytes 0-1/9".parse().unwrap());
            assert_eq!(object.unwrap().part(&mut head), None);
        }
        assert!(StoredObject::of(&call("PutObject"), &mut HeaderMap::new(), true).is_none());
    }

    #[test]
    fn entity_tags_are_marked_and_asked_for_without() {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, "\"0123-2\"".parse().unwrap());
        headers.insert("x-amz-checksum-crc32", "AAAA".parse().unwrap());
        StoredObject::mark(&mut headers);
        assert_eq!(headers[ETAG], "\"0123-2-masked\"");
        assert_eq!(headers.len(), 1);
        for (asked, sent) in [("\"0123-2-masked\"", "\"0123-2\""), ("\"a-masked\", \"b\"", "\"a\", \"b\""), ("*", "*")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, asked.parse().unwrap());
            StoredObject::of(&call("HeadObject"), &mut headers, false).unwrap();
            assert_eq!(headers[IF_NONE_MATCH], sent);
        }
    }
}
