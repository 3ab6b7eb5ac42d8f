//! aws-chunked bodies: however they are cut, the same is in them, and all of them is told, also of what is wrong.
#![no_main]

use chaperone_aws::{AwsChunkedReader, ChunkedSink};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Seen {
    payload: Vec<u8>,
    all: Vec<u8>,
}

impl ChunkedSink for Seen {
    fn payload(&mut self, bytes: &[u8]) {
        self.payload.extend_from_slice(bytes);
        self.all.extend_from_slice(bytes);
    }

    fn framing(&mut self, bytes: &[u8]) {
        self.all.extend_from_slice(bytes);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut results = chaperone_fuzz::cuts(data).map(|step| {
        let mut reader = AwsChunkedReader::new(None);
        let mut seen = Seen::default();
        let mut told = 0;
        let read = data.chunks(step).try_for_each(|piece| {
            told += piece.len();
            reader.update(piece, &mut seen)
        });
        assert!(seen.all == data[..told]);
        read.and_then(|()| reader.finish()).map(|()| seen.payload)
    });
    let first = results.next().expect("BUG: there is a first cut");
    for other in results {
        match (&first, &other) {
            (Ok(first), Ok(other)) => assert!(first == other),
            (first, other) => assert_eq!(first.is_ok(), other.is_ok()),
        }
    }
});
