//! aws-chunked: the payload inside of its framing.

use aws_lc_rs::digest::{Context, SHA256};

/// Follows the framing as it passes, and digests the payload.
pub struct Decoder {
    state: State,
    line: Vec<u8>,
    length: u64,
    digest: Context,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    AfterData,
    Trailers,
    Broken,
}

/// No chunk's head is longer.
const LONGEST_LINE: usize = 512;

impl Decoder {
    pub fn new() -> Self {
        Self { state: State::Size, line: Vec::new(), length: 0, digest: Context::new(&SHA256) }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Trailers | State::Broken => return,
                State::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.digest.update(&bytes[..take]);
                    self.length += take as u64;
                    bytes = &bytes[take..];
                    let left = left - take as u64;
                    self.state = if left == 0 { State::AfterData } else { State::Data(left) };
                }
                State::Size | State::AfterData => {
                    let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
                    self.line.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end..];
                    if self.line.ends_with(b"\n") {
                        self.end_line();
                    } else if self.line.len() > LONGEST_LINE {
                        self.state = State::Broken;
                    }
                }
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii_end();
        self.state = match self.state {
            State::AfterData if line.is_empty() => State::Size,
            State::Size => {
                let size = line.split(|&byte| byte == b';').next().unwrap_or_default();
                let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
                match size {
                    Some(0) => State::Trailers,
                    Some(size) => State::Data(size),
                    None => State::Broken,
                }
            }
            _ => State::Broken,
        };
    }

    /// The payload's length and SHA-256, if the framing was whole.
    pub fn finish(self) -> Option<(u64, String)> {
        (self.state == State::Trailers).then(|| (self.length, hex::encode(self.digest.finish())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_found_however_the_bytes_are_cut() {
        let wire = b"5;chunk-signature=aa\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        let digest = hex::encode(aws_lc_rs::digest::digest(&SHA256, b"hello world"));
        for size in [1, 2, 7, wire.len()] {
            let mut decoder = Decoder::new();
            wire.chunks(size).for_each(|bytes| decoder.update(bytes));
            assert_eq!(decoder.finish(), Some((11, digest.clone())), "{size}");
        }
        for broken in [&b"zz\r\n"[..], b"5\r\nhello", b"2\r\nhello\r\n0\r\n"] {
            let mut decoder = Decoder::new();
            decoder.update(broken);
            assert_eq!(decoder.finish(), None);
        }
    }
}
