//! WebSockets: a handshake is one or none, an answer opens it or doesn't; of an agent's frames the same goes on however they
//! are cut, and as many bytes are recorded.
#![no_main]

use bytes::Bytes;
use chaperone_proxy::{
    http::strict::check_request_head,
    websocket::frames::{AgentFrames, Handshake},
};
use http::{Request, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(end) = data.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        handshake(&data[..end + 4], &data[end + 4..]);
    }
    for signed in [false, true] {
        let mut results = chaperone_fuzz::cuts(data).map(|step| through(data, step, signed));
        let (record, onward, first) = results.next().expect("BUG: there is a first cut");
        for (other_record, other_onward, other) in results {
            assert_eq!(first, other, "another cut, another outcome");
            assert!(!first || (record == other_record && onward == other_onward), "another cut, other frames");
        }
        if first {
            assert_eq!((record.len(), onward.len()), (data.len(), data.len()));
            assert!(signed || onward == data);
        }
    }
});

fn through(data: &[u8], step: usize, signed: bool) -> (Vec<u8>, Vec<u8>, bool) {
    let mut frames = AgentFrames::new(signed.then(|| chaperone_fuzz::resigner().or_unsigned()));
    let (mut record, mut onward) = (Vec::new(), Vec::new());
    for piece in data.chunks(step) {
        let Ok((one, other)) = frames.update(&Bytes::copy_from_slice(piece)) else { return (record, onward, false) };
        record.extend_from_slice(&one);
        onward.extend_from_slice(&other);
    }
    let whole = frames.finish().is_ok();
    (record, onward, whole)
}

/// The head of a request, and after it what is taken for the fields of an answer.
fn handshake(head: &[u8], answer: &[u8]) {
    if check_request_head(head).is_err() {
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    if !matches!(parsed.parse(head), Ok(httparse::Status::Complete(_))) {
        return;
    }
    let mut request = Request::builder().method(parsed.method.unwrap_or_default()).uri(parsed.path.unwrap_or_default());
    for field in parsed.headers.iter() {
        request = request.header(field.name, field.value);
    }
    let Ok(request) = request.body(()) else { return };
    let Some(Ok(handshake)) = Handshake::of(&request.into_parts().0) else { return };
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(answer, &mut fields) else { return };
    let mut response = Response::builder().status(101);
    for field in fields {
        response = response.header(field.name, field.value);
    }
    let Ok(response) = response.body(()) else { return };
    if handshake.check(&response.into_parts().0).is_ok() {
        let accept = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("sec-websocket-accept");
        assert_eq!(fields.iter().filter(accept).count(), 1);
    }
}
