//! Requests made by hand that touch a resource by a name that a reader may overlook (`tests/data/handmade.py`): under a
//! policy that permits everything but that resource, none passes.

use std::collections::BTreeMap;

use http::Request;
use serde::Deserialize;

use crate::{
    hostile_wire_tests::{Sent, decode},
    resources_tests::Asked,
    wire_tests::base64,
};

static HANDMADE: &[u8] = include_bytes!("../tests/data/handmade.ndjson.zst");

#[derive(Deserialize)]
struct Line {
    w: String,
    m: String,
    u: String,
    h: Vec<(String, String)>,
    b: String,
    forbidden: Vec<String>,
    free: Vec<String>,
}

impl Line {
    fn sent(&self) -> Sent {
        let uri: http::Uri = self.u.parse().unwrap();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let host = uri.authority().unwrap().as_str();
        let mut request = Request::builder().method(self.m.as_str()).uri(target).header("host", host);
        for (name, value) in self.h.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            request = request.header(name, value.as_bytes());
        }
        Sent { parts: request.body(()).unwrap().into_parts().0, body: base64(&self.b) }
    }
}

#[test]
fn what_is_touched_by_any_name_is_forbidden() {
    let text = zstd::decode_all(HANDMADE).unwrap();
    let (mut asked, mut wrong, mut count) = (BTreeMap::<String, Asked>::new(), Vec::new(), 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Line = serde_json::from_slice(line).unwrap();
        let call = match decode(&line.sent()) {
            Some(Ok(call)) => call,
            // What is refused touches nothing.
            Some(Err(_)) if line.free.is_empty() => continue,
            other => panic!("{}: {other:?}", line.w),
        };
        for (arns, is_touched) in [(&line.forbidden, true), (&line.free, false)] {
            for arn in arns {
                count += 1;
                let asked = asked.entry(arn.clone()).or_insert_with(|| {
                    Asked::new(&format!(
                        "permit (principal, action, resource); \
                         forbid (principal, action, resource) when {{ resource.arn like \"{arn}\" }};"
                    ))
                });
                if asked.allows(&call) == is_touched {
                    let what = if is_touched { "passes" } else { "is denied" };
                    wrong.push(format!("{what} without {arn}: {} {:?} {:?}", line.w, call.resources, call.unknown));
                }
            }
        }
    }
    assert!(count > 500, "{count}");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
