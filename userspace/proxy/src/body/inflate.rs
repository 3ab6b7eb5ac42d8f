//! Compressed answers, decoded within bounds so that they can be read.

use std::io::Write as _;

use bytes::Bytes;

/// How many times as long as it came a body may get, past its first bytes: deflate's own limit is some 1,030.
const MAX_RATIO: u64 = 200;
/// What may come of little.
const MAX_FREE: u64 = 8 << 20;

enum Decoder {
    Gzip(flate2::write::MultiGzDecoder<Vec<u8>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
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
                let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).map_err(|error| error.to_string())?;
                // 8 MiB of window, as RFC 9659 asks of those who decode what comes over HTTP.
                decoder.window_log_max(23).map_err(|error| error.to_string())?;
                Decoder::Zstd(decoder)
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
            let written = match &mut self.decoder {
                Decoder::Gzip(decoder) => decoder.write_all(part).and_then(|()| decoder.flush()),
                Decoder::Zstd(decoder) => decoder.write_all(part).and_then(|()| decoder.flush()),
            };
            written.map_err(|error| format!("it can't be read for masking: its compression is broken ({error})"))?;
            self.take(out)?;
        }
        Ok(())
    }

    /// The end: what was compressed must have ended too.
    pub(crate) fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), String> {
        let broken = |error| format!("it can't be read for masking: its compression ends too early ({error})");
        match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.try_finish().map_err(broken)?,
            Decoder::Zstd(decoder) => decoder.flush().map_err(broken)?,
        }
        self.take(out)
    }

    fn take(&mut self, out: &mut Vec<Bytes>) -> Result<(), String> {
        let given = match &mut self.decoder {
            Decoder::Gzip(decoder) => std::mem::take(decoder.get_mut()),
            Decoder::Zstd(decoder) => std::mem::take(decoder.get_mut()),
        };
        self.given += given.len() as u64;
        if self.given > MAX_FREE.max(self.read.saturating_mul(MAX_RATIO)) {
            return Err(format!("it can't be read for masking: {} bytes of it decode to {}", self.read, self.given));
        }
        if !given.is_empty() {
            out.push(given.into());
        }
        Ok(())
    }
}
