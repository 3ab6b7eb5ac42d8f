//! Event streams: however they are cut the same goes on, nothing is held beyond the bound, and nothing that isn't signed
//! goes on from a stream that must be.
#![no_main]

use chaperone_aws::EventStreamError;
use chaperone_fuzz::{MAX_EVENT, resigner};
use libfuzzer_sys::fuzz_target;

/// What goes on, and what is said at the end.
fn through(data: &[u8], step: usize, optional: bool) -> (Vec<u8>, Result<u64, EventStreamError>) {
    let mut events = resigner();
    if optional {
        events = events.or_unsigned();
    }
    let mut out = Vec::new();
    for piece in data.chunks(step) {
        match events.update(piece) {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(error) => return (out, Err(error)),
        }
        assert!(events.held() <= MAX_EVENT + step, "{} bytes are held", events.held());
    }
    (out, events.finish().map(|digest| digest.bytes))
}

fuzz_target!(|data: &[u8]| {
    // As it is, and as one message with the checksums that it should have.
    for data in [data.to_vec(), framed(data)] {
        for optional in [false, true] {
            let mut results = chaperone_fuzz::cuts(&data).map(|step| through(&data, step, optional));
            let (out, first) = results.next().expect("BUG: there is a first cut");
            for (other_out, other) in results {
                assert_eq!(first.is_ok(), other.is_ok(), "{first:?} {other:?}");
                assert!(first.is_err() || out == other_out, "another cut, another stream");
            }
            if !optional {
                assert!(out.is_empty(), "nobody has signed this");
            }
        }
    }
});

/// A message whose headers and payload these are, the headers being as long as a signed message's.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + data.len()).expect("BUG: inputs are small");
    let mut message = [length.to_be_bytes(), 67_u32.to_be_bytes()].concat();
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(data);
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message
}
