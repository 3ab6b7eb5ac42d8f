//! Whole requests: whatever passes the framing is explained, and can be written out.
#![no_main]

use chaperone_aws::Catalog;
use chaperone_proxy::{connection::hello::host_name, http::strict::check_request_head};
use http::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
    let (head, body) = data.split_at(end + 4);
    if check_request_head(head).is_err() {
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    if !matches!(parsed.parse(head), Ok(httparse::Status::Complete(_))) {
        return;
    }
    let mut request = Request::builder().method(parsed.method.unwrap_or_default()).uri(parsed.path.unwrap_or_default());
    let mut host = None;
    for field in parsed.headers.iter() {
        if field.name.eq_ignore_ascii_case("host") {
            host = host_name(field.value);
        }
        request = request.header(field.name, field.value);
    }
    let (Some(host), Ok(request)) = (host, request.body(())) else { return };
    let parts = request.into_parts().0;
    let explanation =
        chaperone_fuzz::bounded(data.len(), || Catalog::global().explain(&host, &parts, body, Some("123456789012")));
    serde_json::to_vec(&explanation).expect("BUG: an explanation can be written");
    if explanation.error.is_none() {
        assert!(!explanation.actions.is_empty() && !explanation.resources.is_empty(), "{explanation:?}");
    }
});
