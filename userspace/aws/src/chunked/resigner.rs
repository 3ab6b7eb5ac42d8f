//! Bodies whose chunks are signed, each signature chained to the one before: checked by the agent's key, signed again by
//! ours, in the same framing and of the same length.
//!
//! A chunk is held until its signature is known to be right, so that nothing goes on that the session's key has not
//! signed. That costs memory, and so chunks have a bound; SDKs make them of 64 to 128 KiB.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>

use std::fmt;

use aws_lc_rs::{digest, hmac};
use bytes::{Bytes, BytesMut};

use super::{ChunkedError, ChunkedSink, Framing, MAX_LINE, Piece};

const CHUNK_SIGNATURE: &[u8] = b"chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";
/// All trailers together. A checksum takes some 60 bytes.
const MAX_TRAILER_BYTES: usize = 8 * 1024;
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What chunks are signed by: the key that the request's head was signed by, and where its chain of signatures has got
/// to. [`Signer::chunk_key`](crate::Signer::chunk_key) makes it.
pub struct ChunkKey {
    pub(crate) key: hmac::Key,
    /// The head's `x-amz-date`.
    pub(crate) stamp: String,
    /// `day/region/service/aws4_request`.
    pub(crate) scope: String,
    /// The signature before, in hexadecimal.
    pub(crate) previous: String,
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkKey").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl ChunkKey {
    fn to_sign(&self, what: What, hash: &[u8]) -> String {
        let Self { stamp, scope, previous, .. } = self;
        let hash = hex::encode(hash);
        match what {
            What::Chunk => {
                format!("AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{SHA256_OF_NOTHING}\n{hash}")
            }
            What::Trailer => format!("AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{previous}\n{hash}"),
        }
    }

    fn verify(&mut self, what: What, hash: &[u8], signature: &[u8]) -> Result<(), ChunkedError> {
        let wrong = ChunkedError::Signature(what.describe());
        let mut bytes = [0; 32];
        hex::decode_to_slice(signature, &mut bytes).map_err(|_| wrong)?;
        hmac::verify(&self.key, self.to_sign(what, hash).as_bytes(), &bytes).map_err(|_| wrong)?;
        self.previous = hex::encode(bytes);
        Ok(())
    }

    fn sign(&mut self, what: What, hash: &[u8]) -> &[u8] {
        self.previous = hex::encode(hmac::sign(&self.key, self.to_sign(what, hash).as_bytes()));
        self.previous.as_bytes()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Chunk,
    Trailer,
}

impl What {
    fn describe(self) -> &'static str {
        match self {
            Self::Chunk => "a chunk",
            Self::Trailer => "the trailer",
        }
    }
}

/// Checks each chunk of a body and signs it again.
pub struct ChunkResigner {
    framing: Framing,
    agent: ChunkKey,
    ours: ChunkKey,
    /// Whether a signed trailer must come; `Some(true)` once it has.
    trailer: Option<bool>,
    /// What goes on next, up to `ready` checked and signed again.
    out: BytesMut,
    ready: usize,
    /// Where in `out` the signature is that comes next to be replaced.
    signature_at: usize,
    chunk: digest::Context,
    /// Names and values of trailers.
    trailers: Vec<(String, String)>,
    max_chunk: usize,
}

impl fmt::Debug for ChunkResigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkResigner").field("total", &self.framing.total).finish_non_exhaustive()
    }
}

impl ChunkResigner {
    /// For a body whose head was signed by `agent`, and then by `ours`. `trailer`: a signed trailer ends it. `declared`
    /// is its `x-amz-decoded-content-length`. At most `max_chunk` bytes of a chunk are held, besides what comes in one
    /// [`update`](Self::update) and 16 KiB of lines.
    pub fn new(agent: ChunkKey, ours: ChunkKey, trailer: bool, declared: Option<u64>, max_chunk: usize) -> Self {
        Self {
            framing: Framing::new(declared),
            agent,
            ours,
            trailer: trailer.then_some(false),
            out: BytesMut::new(),
            ready: 0,
            signature_at: 0,
            chunk: digest::Context::new(&digest::SHA256),
            trailers: Vec::new(),
            max_chunk,
        }
    }

    /// Takes the next bytes of the body and gives what may go on: possibly nothing. All of them are in `sink` then, also
    /// after an error.
    pub fn update(&mut self, mut bytes: &[u8], sink: &mut impl ChunkedSink) -> Result<Bytes, ChunkedError> {
        self.take(&mut bytes, sink).inspect_err(|_| sink.framing(bytes))?;
        let ready = std::mem::take(&mut self.ready);
        self.signature_at = self.signature_at.saturating_sub(ready);
        Ok(self.out.split_to(ready).freeze())
    }

    fn take(&mut self, bytes: &mut &[u8], sink: &mut impl ChunkedSink) -> Result<(), ChunkedError> {
        while let Some(piece) = self.framing.split(bytes, sink)? {
            match piece {
                Piece::Head(size, line) => {
                    let at = signature_in(line)?;
                    let length = usize::try_from(size).ok().filter(|length| *length <= self.max_chunk);
                    let length = length.ok_or(ChunkedError::TooLarge { size, bound: self.max_chunk })?;
                    self.signature_at = self.out.len() + at;
                    self.out.reserve(line.len() + length + 4);
                    self.out.extend_from_slice(line);
                    self.out.extend_from_slice(b"\r\n");
                    if size == 0 {
                        self.resign(What::Chunk)?;
                    }
                }
                Piece::Data(data) => {
                    self.chunk.update(data);
                    self.out.extend_from_slice(data);
                }
                Piece::ChunkEnd => {
                    self.out.extend_from_slice(b"\r\n");
                    self.resign(What::Chunk)?;
                }
                Piece::Trailer(line) => {
                    let (name, value) = trailer(line)?;
                    let signature = name == TRAILER_SIGNATURE;
                    if self.trailer != Some(false) {
                        return Err(ChunkedError::Malformed("a trailer that is not signed"));
                    }
                    if self.out.len() - self.ready + line.len() > MAX_TRAILER_BYTES + MAX_LINE {
                        return Err(ChunkedError::Malformed("trailers that are too long"));
                    }
                    if signature {
                        let end = line.trim_ascii_end().len();
                        let at = end.checked_sub(64).ok_or(ChunkedError::Signature("the trailer"))?;
                        if value.len() != 64 {
                            return Err(ChunkedError::Signature("the trailer"));
                        }
                        self.signature_at = self.out.len() + at;
                    } else {
                        if self.trailers.iter().any(|(other, _)| *other == name) {
                            return Err(ChunkedError::Malformed("a trailer that comes twice"));
                        }
                        self.trailers.push((name, value));
                    }
                    self.out.extend_from_slice(line);
                    self.out.extend_from_slice(b"\r\n");
                    if signature {
                        self.trailers.sort();
                        for (name, value) in &self.trailers {
                            self.chunk.update(format!("{name}:{value}\n").as_bytes());
                        }
                        self.resign(What::Trailer)?;
                        self.trailer = Some(true);
                    }
                }
                Piece::End => {
                    if self.trailer == Some(false) {
                        return Err(ChunkedError::Malformed("no signature of the trailer"));
                    }
                    self.out.extend_from_slice(b"\r\n");
                    self.ready = self.out.len();
                }
            }
        }
        Ok(())
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.out.len()
    }

    /// The end of the body.
    pub fn finish(self) -> Result<(), ChunkedError> {
        if !self.framing.is_over() || self.trailer == Some(false) {
            return Err(ChunkedError::Incomplete);
        }
        Ok(())
    }

    /// Checks the signature that is in `out`, puts ours in its place, and lets everything up to here go.
    fn resign(&mut self, what: What) -> Result<(), ChunkedError> {
        let hash = std::mem::replace(&mut self.chunk, digest::Context::new(&digest::SHA256)).finish();
        let signature = &mut self.out[self.signature_at..self.signature_at + 64];
        self.agent.verify(what, hash.as_ref(), signature)?;
        signature.copy_from_slice(self.ours.sign(what, hash.as_ref()));
        self.ready = self.out.len();
        Ok(())
    }
}

/// Where in `SIZE;chunk-signature=HEX` the signature begins. Nothing else may be there, as nothing of it is signed.
fn signature_in(line: &[u8]) -> Result<usize, ChunkedError> {
    let at = line.iter().position(|b| *b == b';').map_or(line.len(), |at| at + 1);
    match line[at..].strip_prefix(CHUNK_SIGNATURE) {
        Some(signature) if signature.len() == 64 => Ok(at + CHUNK_SIGNATURE.len()),
        _ => Err(ChunkedError::Malformed("a chunk without a signature, or with more than that")),
    }
}

/// A trailer's name in lower case, and its value.
fn trailer(line: &[u8]) -> Result<(String, String), ChunkedError> {
    let text = std::str::from_utf8(line).map_err(|_| ChunkedError::Malformed("a trailer that is not UTF-8"))?;
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !name.bytes().all(token) {
        return Err(ChunkedError::Malformed("a trailer's name"));
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

#[cfg(test)]
mod tests {
    use http::{Request, request::Parts};

    use super::*;
    use crate::{AwsCredentials, Scope, Signer, chunked::tests::Seen};

    // AWS's own examples of 66,560 bytes, 2013-05-24, region us-east-1:
    // https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    const CHUNKS: [&str; 3] = [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ];
    const TRAILER_SEED: &str = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    const TRAILER_CHUNKS: [&str; 3] = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ];
    const TRAILER: &str = "x-amz-checksum-crc32c:sOO8/Q==\r\n\
        x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n";
    const BOUND: usize = 1 << 20;

    /// The head of AWS's example.
    fn head(trailer: bool) -> Parts {
        let (kind, signed, seed) = if trailer {
            ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", ";x-amz-trailer", TRAILER_SEED)
        } else {
            ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", SEED)
        };
        let length = if trailer { "" } else { "content-length;" };
        let mut request = Request::builder()
            .method("PUT")
            .uri("/examplebucket/chunkObject.txt")
            .header("host", "s3.amazonaws.com")
            .header("x-amz-date", "20130524T000000Z")
            .header("x-amz-storage-class", "REDUCED_REDUNDANCY")
            .header("x-amz-content-sha256", kind)
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", "66560")
            .header("content-length", "66824")
            .header(
                "authorization",
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                     SignedHeaders=content-encoding;{length}host;x-amz-content-sha256;x-amz-date;\
                     x-amz-decoded-content-length;x-amz-storage-class{signed},Signature={seed}"
                ),
            );
        if trailer {
            request = request.header("x-amz-trailer", "x-amz-checksum-crc32c");
        }
        request.body(()).unwrap().into_parts().0
    }

    fn body(trailer: bool) -> Vec<u8> {
        let chunks = if trailer { TRAILER_CHUNKS } else { CHUNKS };
        let data = "a".repeat(65_536);
        let mut body = format!(
            "10000;chunk-signature={}\r\n{data}\r\n400;chunk-signature={}\r\n{}\r\n0;chunk-signature={}\r\n",
            chunks[0],
            chunks[1],
            &data[..1024],
            chunks[2]
        );
        body.push_str(if trailer { TRAILER } else { "" });
        body.push_str("\r\n");
        body.into_bytes()
    }

    fn real() -> AwsCredentials {
        let inner = aws_credential_types::Credentials::new("AKIAREALREALREALREAL", "real secret", None, None, "test");
        AwsCredentials::new(inner)
    }

    /// A resigner of AWS's example, and the head as we signed it.
    fn resigner(trailer: bool, secret: &str, declared: u64, bound: usize) -> (ChunkResigner, Parts) {
        let signer = Signer::new();
        let mut parts = head(trailer);
        let agent = signer.chunk_key(&parts, secret).unwrap();
        let scope = Scope { region: "us-east-1".into(), service: "s3".into() };
        let now = time::macros::datetime!(2013-05-24 00:01 UTC);
        signer.sign(&mut parts, None, &real(), &scope, now).unwrap();
        let ours = signer.chunk_key(&parts, real().secret_access_key()).unwrap();
        (ChunkResigner::new(agent, ours, trailer, Some(declared), bound), parts)
    }

    /// What goes on, and the payload.
    fn resign(body: &[u8], trailer: bool, step: usize) -> Result<(Vec<u8>, Vec<u8>), ChunkedError> {
        let mut out = Vec::new();
        let mut seen = Seen::default();
        let (mut resigner, _) = resigner(trailer, SECRET, 66_560, BOUND);
        for (piece, from) in body.chunks(step).zip((0..).step_by(step)) {
            let result = resigner.update(piece, &mut seen);
            assert_eq!(seen.all, body[..from + piece.len()], "all of it is told, also of what is wrong");
            out.extend_from_slice(&result?);
            assert!(resigner.held() <= BOUND + step + 2 * MAX_LINE);
        }
        resigner.finish().map(|()| (out, seen.payload))
    }

    #[test]
    fn awss_examples_are_right_and_come_out_signed_by_us() {
        for trailer in [false, true] {
            let body = body(trailer);
            let mut ours = None;
            for step in [1, 7, 1000, 65_000, 1 << 20] {
                let (out, payload) = resign(&body, trailer, step).unwrap();
                assert_eq!(payload, "a".repeat(66_560).as_bytes());
                assert_eq!(out.len(), body.len(), "the length stays");
                assert_ne!(out, body);
                assert_eq!(*ours.get_or_insert_with(|| out.clone()), out, "however it is cut");
            }
            // What came out is right by our key: taken for an agent's, it passes once more.
            let (_, parts) = resigner(trailer, SECRET, 66_560, BOUND);
            let key = || Signer::new().chunk_key(&parts, real().secret_access_key()).unwrap();
            let mut again = ChunkResigner::new(key(), key(), trailer, Some(66_560), BOUND);
            let out = again.update(ours.as_deref().unwrap(), &mut Seen::default()).unwrap();
            assert_eq!(Some(out.to_vec()), ours);
            again.finish().unwrap();
        }
        assert_eq!(body(false).len(), 66_824, "AWS's own figure");
    }

    #[test]
    fn the_seed_is_made_and_checked_like_any_signature() {
        use crate::{Placeholder, RequestAuth};
        let scope = Scope { region: "us-east-1".into(), service: "s3".into() };
        let then = time::macros::datetime!(2013-05-24 00:00 UTC);
        let credentials = |token: Option<&str>| {
            let token = token.map(str::to_owned);
            AwsCredentials::new(aws_credential_types::Credentials::new(
                "AKIAIOSFODNN7EXAMPLE",
                SECRET,
                token,
                None,
                "t",
            ))
        };
        // AWS's other example signs content-length, which we don't.
        let mut parts = head(true);
        Signer::new().sign(&mut parts, None, &credentials(None), &scope, then).unwrap();
        assert_eq!(Signer::new().chunk_key(&parts, SECRET).unwrap().previous, TRAILER_SEED);
        for trailer in [false, true] {
            let mut parts = head(trailer);
            Signer::new().sign(&mut parts, None, &credentials(Some("token")), &scope, then).unwrap();
            let placeholder = Placeholder::fixed("AKIAIOSFODNN7EXAMPLE", SECRET, "token");
            let verify = |parts: &Parts| {
                Signer::new().verify(parts, &RequestAuth::of(parts), None, &placeholder, then).map(drop)
            };
            assert_eq!(verify(&parts), Ok(()));
            parts.headers.insert("x-amz-content-sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD".parse().unwrap());
            assert!(matches!(verify(&parts), Err(crate::VerifyError::NotSupported(_))));
        }
    }

    #[test]
    fn nothing_that_is_not_signed_goes_on() {
        let good = body(false);
        let first = CHUNKS[0].len() + "10000;chunk-signature=\r\n".len() + 65_536 + 2;
        for (place, passes) in [(100, 0), (30, 0), (first + 200, first), (good.len() - 10, first + 1024 + 88 - 1)] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            let (mut resigner, _) = resigner(false, SECRET, 66_560, BOUND);
            let mut passed = 0;
            let error = bad.chunks(999).find_map(|piece| match resigner.update(piece, &mut Seen::default()) {
                Ok(out) => {
                    passed += out.len();
                    None
                }
                Err(error) => Some(error),
            });
            assert_eq!(error, Some(ChunkedError::Signature("a chunk")), "{place}");
            assert!(passed <= passes, "{place}: {passed} bytes went on");
        }
        let (mut wrong, _) = resigner(false, "another secret", 66_560, BOUND);
        assert_eq!(wrong.update(&good, &mut Seen::default()), Err(ChunkedError::Signature("a chunk")));
        let text = |from: &str, to: &str| String::from_utf8(body(true)).unwrap().replace(from, to).into_bytes();
        for (from, to) in [("sOO8", "sOO9"), ("crc32c:", "crc32:"), ("signature:d8", "signature:d9")] {
            assert_eq!(resign(&text(from, to), true, 500).unwrap_err(), ChunkedError::Signature("the trailer"));
        }
    }

    #[test]
    fn lies_about_lengths_and_framing_are_refused() {
        use ChunkedError::{Incomplete, Length, Malformed, TooLarge};
        let good = body(false);
        for end in [10, 5000, good.len() - 90, good.len() - 50] {
            assert_eq!(resign(&good[..end], false, 100).unwrap_err(), Incomplete, "{end}");
        }
        let (mut short, _) = resigner(false, SECRET, 66_559, BOUND);
        assert_eq!(short.update(&good, &mut Seen::default()), Err(Length { declared: 66_559, actual: 66_560 }));
        let (mut bounded, _) = resigner(false, SECRET, 66_560, 65_535);
        assert_eq!(bounded.update(&good, &mut Seen::default()), Err(TooLarge { size: 65_536, bound: 65_535 }));
        let (mut huge, _) = resigner(false, SECRET, u64::MAX, BOUND);
        let head = format!("140000000;chunk-signature={SEED}\r\n");
        assert_eq!(
            huge.update(head.as_bytes(), &mut Seen::default()),
            Err(TooLarge { size: 0x1_4000_0000, bound: BOUND })
        );
        assert!(huge.held() < 1000, "nothing is set aside for it");

        let replaced = |trailer, from: &str, to: &str| {
            let text = String::from_utf8(body(trailer)).unwrap().replacen(from, to, 1);
            resign(text.as_bytes(), trailer, 333).unwrap_err()
        };
        for (from, to) in [
            ("10000;chunk-signature", "10000;x=y;chunk-signature"),
            (";chunk-signature=ad80", "\r\n"),
            (";chunk-signature=ad80", ";chunk-signature=ad8"),
            (";chunk-signature=ad80", ";chunk-signature=ad800"),
            ("10000;", "10000 ;"),
            ("10000;", "1\u{e9};"),
        ] {
            assert!(matches!(replaced(false, from, to), Malformed(_)), "{to}");
        }
        assert_eq!(replaced(false, "ad80", "zz80"), ChunkedError::Signature("a chunk"));
        let more = [&good[..], b"x"].concat();
        assert!(matches!(resign(&more, false, 100), Err(Malformed("bytes after the end"))));
        // A trailer where none is signed, and none where one must be.
        let text = String::from_utf8(good).unwrap();
        let with = format!("{}{TRAILER}\r\n", text.strip_suffix("\r\n").unwrap());
        assert!(matches!(resign(with.as_bytes(), false, 100), Err(Malformed(_))));
        assert!(matches!(replaced(true, TRAILER, ""), Malformed(_)));
        assert!(matches!(replaced(true, "x-amz-checksum-crc32c", "x amz"), Malformed(_)));
        assert!(matches!(replaced(true, "x-amz-trailer", "a: \r\na:\r\nx-amz-trailer"), Malformed(_)));
        let long = format!("a:{}\r\nb:{}\r\nx-amz-trailer", "v".repeat(4000), "v".repeat(4000)).repeat(4);
        assert!(matches!(replaced(true, "x-amz-trailer", &long), Malformed(_)));
    }
}
