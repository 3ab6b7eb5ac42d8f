//! DER (X.690), as much as key stores and names need.

/// An element's tag and contents, and what follows it.
pub(super) fn read(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // Of indefinite length is BER alone; more than four bytes tell of more than a file has.
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) || rest.len() < count {
            return None;
        }
        let (length, rest) = rest.split_at(count);
        (length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
    };
    (length <= rest.len()).then(|| (tag, &rest[..length], &rest[length..]))
}

/// The contents of the one element that `bytes` is, which has that tag.
pub(super) fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    first(bytes, tag).filter(|(_, rest)| rest.is_empty()).map(|(contents, _)| contents)
}

/// The contents of the first element, which has that tag, and what follows it.
pub(super) fn first(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    read(bytes).filter(|(found, ..)| *found == tag).map(|(_, contents, rest)| (contents, rest))
}

/// An element.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or_default());
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or_default());
        out.extend(bytes);
    }
    out.extend(parts.concat());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_not() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let contents = vec![7; length];
            let bytes = element(0x30, &[&contents]);
            assert_eq!(only(&bytes, 0x30), Some(&contents[..]));
            assert_eq!((only(&bytes, 0x31), read(&bytes[..bytes.len() - 1])), (None, None));
        }
        for wrong in
            [&b""[..], b"\x30", b"\x30\x80\x00\x00", b"\x30\x85\x00\x00\x00\x00\x01\x00", b"\x30\x84\xff\xff\xff\xff"]
        {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
