//! aws-chunked bodies: however they are cut, the same is in them, and what is in them is not longer than they are.
#![no_main]

use chaperone_aws::AwsChunkedHasher;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut results = chaperone_fuzz::cuts(data).map(|step| {
        let mut hasher = AwsChunkedHasher::new(None);
        data.chunks(step).try_for_each(|piece| hasher.update(piece)).and_then(|()| hasher.finish())
    });
    let first = results.next().expect("BUG: there is a first cut");
    for other in results {
        match (&first, &other) {
            (Ok(first), Ok(other)) => assert_eq!((first.bytes, first.sha256), (other.bytes, other.sha256)),
            (first, other) => assert_eq!(first.is_ok(), other.is_ok(), "{first:?} {other:?}"),
        }
    }
    if let Ok(digest) = first {
        assert!(digest.bytes < data.len() as u64);
    }
});
