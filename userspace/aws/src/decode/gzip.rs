//! Compressed bodies (RFC 1952), expanded to be decoded and for nothing else: the bytes that were sent go on.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

use super::DecodeError;

/// How large a body may become, in bytes. CloudWatch, the one service whose clients compress, takes 1 MB.
pub(crate) const MAX_EXPANDED: usize = 4 << 20;

/// Magic, deflate, and no flags: a name or comment in the head would be text that one reader sees and another doesn't.
const HEAD: [u8; 4] = [0x1f, 0x8b, 8, 0];
const HEAD_LENGTH: usize = 10;
const MALFORMED: DecodeError = DecodeError::Body("not the gzip it should be");

/// One gzip member and nothing after it.
pub(crate) fn expanded(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (head, deflated) = body.split_at_checked(HEAD_LENGTH).ok_or(MALFORMED)?;
    if !head.starts_with(&HEAD) {
        return Err(MALFORMED);
    }
    let mut decoder = DeflateDecoder::new(deflated);
    let mut all = Vec::new();
    decoder.by_ref().take(MAX_EXPANDED as u64 + 1).read_to_end(&mut all).map_err(|_| MALFORMED)?;
    if all.len() > MAX_EXPANDED {
        return Err(DecodeError::TooLarge("compressed body"));
    }
    // CRC-32 and size, both of what was expanded; then the end.
    let end: [u8; 8] = decoder.into_inner().try_into().map_err(|_| MALFORMED)?;
    let mut crc = flate2::Crc::new();
    crc.update(&all);
    let (sum, size) = (u32::from_le_bytes([end[0], end[1], end[2], end[3]]), &end[4..]);
    let length = u32::try_from(all.len()).map_err(|_| MALFORMED)?;
    if sum != crc.sum() || size != length.to_le_bytes() {
        return Err(MALFORMED);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder, write::GzEncoder};

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn one_member_is_expanded() {
        assert_eq!(expanded(&packed(b"some text")).unwrap(), b"some text");
        assert_eq!(expanded(&packed(b"")).unwrap(), b"");
        // Python 3.11: gzip.compress(b"Action=PutMetricData", mtime=0)
        let python = hex::decode("1f8b0800000000000203734c2ec9cccfb30d282df14d2d29ca4c76492c4904002829e04b14000000");
        assert_eq!(expanded(&python.unwrap()).unwrap(), b"Action=PutMetricData");
    }

    #[test]
    fn bombs_and_what_two_readers_could_read_in_two_ways_are_refused() {
        let bomb = packed(&vec![0; MAX_EXPANDED + 1]);
        assert!(bomb.len() < 10_000);
        assert_eq!(expanded(&bomb), Err(DecodeError::TooLarge("compressed body")));
        assert!(expanded(&packed(&vec![0; MAX_EXPANDED])).is_ok());
        let good = packed(b"some text");
        let two = [&good[..], &good[..]].concat();
        let after = [&good[..], b"x"].concat();
        let mut wrong_sum = good.clone();
        let at = wrong_sum.len() - 8;
        wrong_sum[at] ^= 1;
        let mut wrong_size = good.clone();
        *wrong_size.last_mut().unwrap() ^= 1;
        let mut named = GzBuilder::new().filename("x&Action=Other").write(Vec::new(), Compression::fast());
        named.write_all(b"some text").unwrap();
        for bad in [
            &two[..],
            &after,
            &wrong_sum,
            &wrong_size,
            &named.finish().unwrap(),
            &good[..good.len() - 1],
            &good[..12],
            b"",
            b"plain",
        ] {
            assert_eq!(expanded(bad), Err(MALFORMED), "{bad:02x?}");
        }
    }
}
