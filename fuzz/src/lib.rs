//! What the targets share: a request from its parts, decoded as the data path does it.

use std::time::{Duration, Instant};

use chaperone_aws::{Catalog, DecodeError, EventResigner, RequestAuth, Signer};
use chaperone_model::Call;
use http::{Request, request::Parts};

/// The head of a request to `host`.
pub fn head(method: &str, host: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target).header("host", host);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("BUG: a constant head is one").into_parts().0
}

/// What reading may take at most, whatever is read: the catalog's service is read with the first of its calls.
const START: Duration = Duration::from_millis(500);
/// And for each byte: a hundred times what it takes, for the fuzzer's checks and a machine that is busy.
const PER_BYTE: Duration = Duration::from_micros(2);

/// Runs a reader, whose time must grow as its input does. What took too long is run again, since others use the machine.
pub fn bounded<T>(bytes: usize, read: impl Fn() -> T) -> T {
    let most = START + PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let result = read();
        least = least.min(began.elapsed());
        if least <= most {
            return result;
        }
    }
    panic!("{bytes} bytes took {least:?} to read, three times; {most:?} is the bound");
}

/// What a body is taken for under a head that is known to be good.
pub fn decode(parts: &Parts, body: &[u8]) -> Result<Call, DecodeError> {
    let catalog = Catalog::global();
    let host = parts.headers["host"].to_str().expect("BUG: a constant host is text");
    let host = catalog.host(host).expect("BUG: a constant host is AWS's");
    let call =
        bounded(body.len(), || catalog.decode(&host, parts, Some(body), &RequestAuth::None, Some("123456789012")));
    if let Ok(call) = &call {
        // As the journal and the policies take it.
        serde_json::to_vec(&call.parameters).expect("BUG: parameters can be written");
        assert!(!call.actions.is_empty(), "a call that needs nothing would be permitted by nothing said: {call:?}");
        assert!(!call.resources.is_empty(), "a call on nothing: {call:?}");
    }
    call
}

/// A body cut into pieces of `step` bytes reads as it does whole.
pub fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    [1, 7, bytes.len().max(1)].into_iter()
}

/// The largest message of an event stream that [`resigner`] holds, in bytes.
pub const MAX_EVENT: usize = 64 << 10;

/// For an event stream of some session's.
pub fn resigner() -> EventResigner {
    let field = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/20250601/eu-west-1/transcribe/aws4_request, SignedHeaders=host;x-amz-date, \
         Signature={}",
        "0".repeat(64)
    );
    let fields = [("authorization", &field[..])];
    let head = head("POST", "transcribestreaming.eu-west-1.amazonaws.com", "/stream-transcription", &fields);
    let key = |secret: &str| Signer::event_key(&head, secret).expect("BUG: a constant head is signed");
    EventResigner::new(key("agents"), key("ours"), MAX_EVENT)
}
