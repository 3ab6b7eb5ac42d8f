//! Reading a value from a bbolt database, as podman up to version 4 and containerd keep their state in one. Only as much as that takes.
//!
//! The layout is that of bbolt's `internal/common` (page.go, meta.go, bucket.go): a B+tree of pages, buckets nested as
//! values, numbers in the machine's byte order. Whatever doesn't fit it, is too large or is nested too deep gives nothing.

use std::{fs::File, os::unix::fs::FileExt as _};

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const META: u16 = 4;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Of a page, before its elements; and of an element.
const HEAD: usize = 16;
/// No page of one container's configuration comes near.
const MAX_PAGE: usize = 16 << 20;
/// A tree of any size isn't deeper.
const MAX_DEPTH: usize = 32;
/// How many keys a bucket of labels may have.
const MAX_ENTRIES: usize = 4096;

/// The value of `key` in the bucket that is found by these names, each in the one before.
pub(crate) fn value(file: &File, buckets: &[&[u8]], key: &[u8]) -> Option<Vec<u8>> {
    let (mut bucket, page_size) = root(file)?;
    for name in buckets {
        let (is_bucket, value) = find(file, page_size, bucket, name)?;
        bucket = is_bucket.then(|| Bucket::parse(&value)).flatten()?;
    }
    let (is_bucket, value) = find(file, page_size, bucket, key)?;
    (!is_bucket).then_some(value)
}

/// Every key in the bucket that is found by these names, with its value; those in buckets inside not. `None` if there are
/// more than a container has labels.
pub(crate) fn entries(file: &File, buckets: &[&[u8]]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut bucket, page_size) = root(file)?;
    for name in buckets {
        let (is_bucket, value) = find(file, page_size, bucket, name)?;
        bucket = is_bucket.then(|| Bucket::parse(&value)).flatten()?;
    }
    let mut found = Vec::new();
    let mut pages = vec![match bucket {
        Bucket::Inline(page) => page,
        Bucket::Paged(root) => read(file, page_size, root)?,
    }];
    for _ in 0..MAX_ENTRIES {
        let Some(page) = pages.pop() else { return Some(found) };
        let (flags, count) = (u16_at(&page, 8)?, usize::from(u16_at(&page, 10)?));
        for element in (0..count).map(|index| HEAD + index * HEAD) {
            if found.len() + pages.len() > MAX_ENTRIES {
                return None;
            }
            if flags & LEAF == 0 {
                pages.push(read(file, page_size, u64_at(&page, element + 8)?)?);
                continue;
            }
            let (kind, key, value) = leaf(&page, element)?;
            if kind & 1 == 0 {
                found.push((key.to_vec(), value.to_vec()));
            }
        }
    }
    None
}

/// An element of a leaf: its flags, key and value.
fn leaf(page: &[u8], element: usize) -> Option<(u32, &[u8], &[u8])> {
    let [kind, at, key_size, size] = [0, 4, 8, 12].map(|field| u32_at(page, element + field));
    let at = element.checked_add(at? as usize)?;
    let value = at.checked_add(key_size? as usize)?;
    Some((kind?, page.get(at..value)?, page.get(value..value.checked_add(size? as usize)?)?))
}

enum Bucket {
    /// Its root, by number.
    Paged(u64),
    /// Its only page.
    Inline(Vec<u8>),
}

impl Bucket {
    fn parse(value: &[u8]) -> Option<Self> {
        match u64_at(value, 0)? {
            0 => Some(Self::Inline(value.get(HEAD..)?.to_vec())),
            root => Some(Self::Paged(root)),
        }
    }
}

/// The root bucket of the newest whole meta page, with the size of pages. There are two, written in turns.
fn root(file: &File) -> Option<(Bucket, usize)> {
    let mut newest = None;
    // The second one is a page further, which the first one tells; if that is torn, any size may be.
    for at in [0, 4096, 16_384, 65_536] {
        let mut page = [0; 80];
        if file.read_exact_at(&mut page, at).is_err() || u16_at(&page, 8)? != META {
            continue;
        }
        let meta = &page[HEAD..];
        let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
        });
        if u32_at(meta, 0)? != MAGIC || u32_at(meta, 4)? != VERSION || u64_at(meta, 56)? != sum {
            continue;
        }
        let (size, root, transaction) = (u32_at(meta, 8)? as usize, u64_at(meta, 16)?, u64_at(meta, 48)?);
        if (512..=65_536).contains(&size) && newest.as_ref().is_none_or(|(_, _, other)| transaction > *other) {
            newest = Some((root, size, transaction));
        }
    }
    newest.map(|(root, size, _)| (Bucket::Paged(root), size))
}

/// The value of a key, and whether it is a bucket.
fn find(file: &File, page_size: usize, bucket: Bucket, key: &[u8]) -> Option<(bool, Vec<u8>)> {
    let mut page = match bucket {
        Bucket::Inline(page) => page,
        Bucket::Paged(root) => read(file, page_size, root)?,
    };
    for _ in 0..MAX_DEPTH {
        let (flags, count) = (u16_at(&page, 8)?, usize::from(u16_at(&page, 10)?));
        if flags & LEAF != 0 {
            for element in (0..count).map(|index| HEAD + index * HEAD) {
                let (kind, found, value) = leaf(&page, element)?;
                if found == key {
                    return Some((kind & 1 != 0, value.to_vec()));
                }
            }
            return None;
        }
        if flags & BRANCH == 0 {
            return None;
        }
        // The last whose first key isn't greater.
        let mut next = None;
        for element in (0..count).map(|index| HEAD + index * HEAD) {
            let at = element.checked_add(u32_at(&page, element)? as usize)?;
            let first = page.get(at..at.checked_add(u32_at(&page, element + 4)? as usize)?)?;
            if first > key {
                break;
            }
            next = Some(u64_at(&page, element + 8)?);
        }
        page = read(file, page_size, next?)?;
    }
    None
}

/// A page with those that it overflows into.
fn read(file: &File, page_size: usize, number: u64) -> Option<Vec<u8>> {
    let at = number.checked_mul(page_size as u64)?;
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, at).ok()?;
    let size = (u32_at(&head, 12)? as usize).checked_add(1)?.checked_mul(page_size)?;
    if u64_at(&head, 0)? != number || size > MAX_PAGE {
        return None;
    }
    let mut page = vec![0; size];
    file.read_exact_at(&mut page, at).ok()?;
    Some(page)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Of podman 4.3.1, Debian 12: its own state after `podman create --name named --label team=red --label purpose=x
    /// example.com/agents/coder:1 /bin/busybox sleep 60`.
    const PODMAN: &[u8] = include_bytes!("../../testdata/podman-4.3.1-bolt_state.db");
    const ID: &[u8] = b"6a909d5105424117f1b7c8820324fb8852db99fdfa409e3f1d66b91b6f881c92";

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn podmans_own_database_is_read() {
        let found = value(&file(PODMAN), &[b"ctr", ID], b"config").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&found).unwrap();
        assert_eq!((&config["name"], &config["labels"]["team"]), (&"named".into(), &"red".into()));
        assert_eq!(value(&file(PODMAN), &[b"ctr", b"6a"], b"config"), None);
        assert_eq!(value(&file(PODMAN), &[b"ctr"], ID), None);
        assert_eq!(value(&file(PODMAN), &[b"ctr", ID, b"config"], b"x"), None);
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_nothing() {
        for length in (0..PODMAN.len()).step_by(997) {
            let _ = value(&file(&PODMAN[..length]), &[b"ctr", ID], b"config");
        }
        // Every word at its largest and smallest, one by one: nothing panics, or takes what isn't there.
        for at in (0..PODMAN.len()).step_by(4).filter(|at| at % 4096 < 512) {
            for word in [0_u32, 1, u32::MAX] {
                let mut damaged = PODMAN.to_vec();
                damaged[at..at + 4].copy_from_slice(&word.to_ne_bytes());
                let _ = value(&file(&damaged), &[b"ctr", ID], b"config");
            }
        }
        assert_eq!(value(&file(&vec![0xff; 200_000]), &[b"ctr"], b"x"), None);
    }
}
