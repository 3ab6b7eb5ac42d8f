//! Compressed answers, decoded within bounds so that they can be read.

use std::io::Write as _;

use bytes::Bytes;
use zstd::stream::raw::Operation as _;

/// How many times as long as it came a body may get, past its first bytes: deflate's own limit is some 1,030.
const MAX_RATIO: u64 = 200;
/// What may come of little.
const MAX_FREE: u64 = 8 << 20;

enum Decoder {
    Gzip(flate2::write::MultiGzDecoder<Vec<u8>>),
    Zstd(Zstd),
}

/// Frames one after the other.
struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    given: Vec<u8>,
    /// No frame has begun that hasn't ended.
    is_whole: bool,
}

/// Decodes one body.
pub(crate) struct Inflate {
    decoder: Decoder,
    read: u64,
    given: u64,
}

impl Inflate {
    /// By the field `Content-Encoding`.
    pub(crate) fn of(encoding: &[u8]) -> Result<Self, String> {
        let decoder = match encoding.trim_ascii() {
            b"gzip" | b"x-gzip" => Decoder::Gzip(flate2::write::MultiGzDecoder::new(Vec::new())),
            b"zstd" => {
                let mut decoder = zstd::stream::raw::Decoder::new().map_err(|error| error.to_string())?;
                // 8 MiB of window, as RFC 9659 asks of those who decode what comes over HTTP.
                let window = zstd::stream::raw::DParameter::WindowLogMax(23);
                decoder.set_parameter(window).map_err(|error| error.to_string())?;
                Decoder::Zstd(Zstd { decoder, given: Vec::new(), is_whole: true })
            }
            other => {
                let other = String::from_utf8_lossy(other).into_owned();
                return Err(format!("it can't be read for masking: it is encoded as `{other}`"));
            }
        };
        Ok(Self { decoder, read: 0, given: 0 })
    }

    /// Decodes a piece, in steps, so that a bomb ends before it has taken memory.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<Bytes>) -> Result<(), String> {
        for part in bytes.chunks(4096) {
            self.read += part.len() as u64;
            let most = most(self.read).saturating_sub(self.given);
            let written = match &mut self.decoder {
                Decoder::Gzip(decoder) => decoder.write_all(part).and_then(|()| decoder.flush()),
                Decoder::Zstd(zstd) => zstd.push(part, most),
            };
            written.map_err(|error| format!("it can't be read for masking: its compression is broken ({error})"))?;
            self.take(out)?;
        }
        Ok(())
    }

    /// The end: what was compressed must have ended too.
    pub(crate) fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), String> {
        let broken =
            |error: std::io::Error| format!("it can't be read for masking: its compression ends too early ({error})");
        match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.try_finish().map_err(broken)?,
            Decoder::Zstd(zstd) if zstd.is_whole => {}
            Decoder::Zstd(_) => return Err(broken(std::io::ErrorKind::UnexpectedEof.into())),
        }
        self.take(out)
    }

    fn take(&mut self, out: &mut Vec<Bytes>) -> Result<(), String> {
        let given = match &mut self.decoder {
            Decoder::Gzip(decoder) => std::mem::take(decoder.get_mut()),
            Decoder::Zstd(zstd) => std::mem::take(&mut zstd.given),
        };
        self.given += given.len() as u64;
        if self.given > most(self.read) {
            return Err(format!("it can't be read for masking: {} bytes of it decode to {}", self.read, self.given));
        }
        if !given.is_empty() {
            out.push(given.into());
        }
        Ok(())
    }
}

/// What so many bytes may decode to.
fn most(read: u64) -> u64 {
    MAX_FREE.max(read.saturating_mul(MAX_RATIO))
}

impl Zstd {
    /// Decodes a piece, and no further than just past `most` bytes: a few bytes of a frame can stand for a hundred MiB.
    fn push(&mut self, part: &[u8], most: u64) -> std::io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let mut read = 0;
        loop {
            let status = self.decoder.run_on_buffers(&part[read..], &mut buffer)?;
            read += status.bytes_read;
            self.given.extend_from_slice(&buffer[..status.bytes_written]);
            if status.bytes_read > 0 || status.bytes_written > 0 {
                self.is_whole = status.remaining == 0;
            }
            let idle = read == part.len() && status.bytes_written < buffer.len();
            if idle || self.given.len() as u64 > most {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(encoding: &[u8], body: &[u8], step: usize) -> Result<Vec<u8>, String> {
        let mut inflate = Inflate::of(encoding).unwrap();
        let mut out = Vec::new();
        for piece in body.chunks(step) {
            inflate.push(piece, &mut out)?;
        }
        inflate.finish(&mut out)?;
        Ok(out.concat())
    }

    #[test]
    fn what_is_cut_anywhere_is_refused_and_the_whole_is_read() {
        let text = b"hunter2 ".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&text).unwrap();
        let packed = [(&b"gzip"[..], gzip.finish().unwrap()), (b"zstd", zstd::encode_all(&text[..], 3).unwrap())];
        for (encoding, body) in packed {
            for step in [1, 7, body.len()] {
                assert_eq!(read(encoding, &body, step).unwrap(), text);
                // One after the other.
                let twice = [&body[..], &body].concat();
                assert_eq!(read(encoding, &twice, step).unwrap(), [&text[..], &text].concat());
            }
            for end in 1..body.len() {
                assert!(read(encoding, &body[..end], end).is_err(), "{end} of {}", body.len());
                assert!(read(encoding, &[&body[..], &body[..end]].concat(), 9).is_err(), "and {end}");
            }
        }
    }

    #[test]
    fn a_bomb_ends_before_it_has_taken_memory() {
        let body = zstd::encode_all(&vec![0; 256 << 20][..], 1).unwrap();
        let mut inflate = Inflate::of(b"zstd").unwrap();
        let mut out = Vec::new();
        assert!(inflate.push(&body, &mut out).unwrap_err().contains("decode to"));
        assert!(inflate.given <= MAX_FREE.max(body.len() as u64 * MAX_RATIO) + (32 << 10), "{}", inflate.given);
    }
}
