//! How fast a body of signed chunks is checked and signed again: `cargo run --release -p chaperone-aws --example rechunking`.
//!
//! 1 GiB in chunks of 64 KiB, as the AWS SDK for Java makes them. Beside it the same bytes are only hashed, as every body is
//! for the record, which is all that is done to a plain one besides TLS.

use std::{hint::black_box, time::Instant};

use aws_lc_rs::{digest, hmac};
use aws_sigv4::sign::v4::generate_signing_key;
use chaperone_aws::{ChunkResigner, ChunkedSink, Signer};
use http::{Request, request::Parts};
use time::{OffsetDateTime, UtcOffset, macros::format_description};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 1 << 14;
const SECRET: &str = "uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2";

fn main() {
    let now = OffsetDateTime::now_utc().to_offset(UtcOffset::UTC);
    let stamp = now
        .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
        .expect("BUG: a date can be written");
    let (head, seed) = (head(&stamp), "0".repeat(64));
    let data: Vec<u8> = (0..CHUNK).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
    let bodies = signed(&stamp, &seed, &data);

    let mib = f64::from(u32::try_from((CHUNK * CHUNKS) >> 20).expect("BUG: a GiB"));
    let rate = |started: Instant| mib / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let mut recorded = digest::Context::new(&digest::SHA256);
    for piece in &bodies {
        recorded.update(black_box(piece));
    }
    black_box(recorded.finish());
    let plain = rate(started);
    println!("hashed for the record          {plain:8.0} MiB/s");

    let signer = Signer::new();
    let key = |secret: &str| signer.chunk_key(&head, secret).expect("BUG: the head is signed");
    let length = u64::try_from(CHUNK * CHUNKS).ok();
    let mut resigner = ChunkResigner::new(key(SECRET), key("another secret"), false, length, 1 << 20);
    let started = Instant::now();
    let mut recorded = Recorded(digest::Context::new(&digest::SHA256));
    for piece in &bodies {
        black_box(resigner.update(piece, &mut recorded).expect("signed as it should be"));
    }
    black_box(recorded.0.finish());
    let both = rate(started);
    resigner.finish().expect("whole");
    println!("… checked and signed again too {both:8.0} MiB/s");
    println!("what signing costs             {:8.2} s a GiB", 1024.0 / both - 1024.0 / plain);
}

/// The payload's hash, as the record has it.
struct Recorded(digest::Context);

impl ChunkedSink for Recorded {
    fn payload(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn framing(&mut self, bytes: &[u8]) {
        black_box(bytes);
    }
}

/// The head of an upload. Its own signature is only the chunks' seed here.
fn head(stamp: &str) -> Parts {
    let day = &stamp[..8];
    let field = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/{day}/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature={}",
        "0".repeat(64)
    );
    let request = Request::put("/key").header("host", "b.s3.eu-west-1.amazonaws.com").header("x-amz-date", stamp);
    let request = request.header("authorization", field);
    request.body(()).expect("BUG: a constant head is one").into_parts().0
}

/// The body, a piece a chunk. <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>
fn signed(stamp: &str, seed: &str, data: &[u8]) -> Vec<Vec<u8>> {
    let day = &stamp[..8];
    let midnight = OffsetDateTime::now_utc().replace_time(time::Time::MIDNIGHT);
    let key = generate_signing_key(SECRET, midnight.into(), "eu-west-1", "s3");
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
    let sha256 = |bytes: &[u8]| hex::encode(digest::digest(&digest::SHA256, bytes));
    let (empty, full) = (sha256(b""), sha256(data));
    let mut previous = seed.to_owned();
    let mut chunk = |data: &[u8], hash: &str| {
        let to_sign =
            format!("AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{day}/eu-west-1/s3/aws4_request\n{previous}\n{empty}\n{hash}");
        previous = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
        [format!("{:x};chunk-signature={previous}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
    };
    let mut pieces: Vec<Vec<u8>> = (0..CHUNKS).map(|_| chunk(data, &full)).collect();
    pieces.push(chunk(b"", &empty));
    pieces
}
