//! Reading a row from an SQLite database, as podman keeps its state in one since version 5. Only as much as that takes.
//!
//! The layout is SQLite's own (<https://www.sqlite.org/fileformat2.html>): B-trees of pages, whose rows overflow into
//! lists of pages, all numbers big-endian. Nothing is locked, and a journal isn't looked at: podman writes with a rollback
//! journal, so that the file is whole but for the moment of a commit, and whatever doesn't fit gives nothing. The file may be
//! a user's own: all is bounded.

use std::{fs::File, os::unix::fs::FileExt as _};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The root of `sqlite_schema`, which lists the tables.
const SCHEMA: u32 = 1;
/// Of the first page, before its B-tree's own head.
const FILE_HEAD: usize = 100;
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;
/// How many pages of a table are looked at: some ten thousand containers.
const MAX_PAGES: usize = 20_000;
/// A container's configuration is smaller by far.
const MAX_ROW: usize = 4 << 20;
/// A table's root is told in its row of `sqlite_schema`: `type, name, tbl_name, rootpage, sql`.
const SCHEMA_NAME: usize = 1;
const SCHEMA_ROOT: usize = 3;

/// Of the first row of `table` with this text in its first column, what is in another.
pub(super) fn value(file: &File, table: &str, key: &[u8], column: usize) -> Option<Vec<u8>> {
    let database = Database::open(file)?;
    let root = database.find(SCHEMA, SCHEMA_NAME, table.as_bytes(), SCHEMA_ROOT)?;
    let root = root.iter().try_fold(0_u32, |number, byte| Some(number.checked_mul(256)? + u32::from(*byte)))?;
    database.find(root, 0, key, column)
}

struct Database<'a> {
    file: &'a File,
    page_size: usize,
    /// Of a page, without what is reserved at its end.
    usable: usize,
}

impl<'a> Database<'a> {
    fn open(file: &'a File) -> Option<Self> {
        let mut head = [0; FILE_HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        let page_size = match number(&head, 16, 2)? {
            1 => 65_536,
            size => usize::try_from(size).ok().filter(|size| size.is_power_of_two() && *size >= 512)?,
        };
        let usable = page_size.checked_sub(head[20].into()).filter(|usable| *usable >= 480)?;
        (head[..16] == *MAGIC).then_some(Self { file, page_size, usable })
    }

    /// Walks the table at `root` to the first row whose column `by` is `key`.
    fn find(&self, root: u32, by: usize, key: &[u8], column: usize) -> Option<Vec<u8>> {
        let mut pages = vec![root];
        for _ in 0..MAX_PAGES {
            let page_number = pages.pop()?;
            let page = self.page(page_number)?;
            let head = if page_number == 1 { FILE_HEAD } else { 0 };
            let cells = usize::try_from(number(&page, head + 3, 2)?).ok()?;
            let kind = *page.get(head)?;
            let pointers = head + if kind == INTERIOR { 12 } else { 8 };
            for cell in (0..cells).map(|cell| pointers + cell * 2) {
                let at = usize::try_from(number(&page, cell, 2)?).ok()?;
                match kind {
                    INTERIOR if pages.len() < MAX_PAGES => pages.push(child(&page, at)?),
                    LEAF => {
                        let row = Row::parse(self, &page, at)?;
                        if self::column(by, row.local).is_some_and(|found| found == key) {
                            return self::column(column, &self.whole(&row)?).map(<[u8]>::to_vec);
                        }
                    }
                    _ => return None,
                }
            }
            if kind == INTERIOR {
                pages.push(child(&page, head + 8)?);
            }
        }
        None
    }

    fn page(&self, page: u32) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.page_size];
        let at = u64::from(page.checked_sub(1)?) * self.page_size as u64;
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }

    /// A row with what overflowed.
    fn whole(&self, row: &Row<'_>) -> Option<Vec<u8>> {
        let (mut bytes, mut next) = (row.local.to_vec(), row.overflow);
        while bytes.len() < row.size {
            let page = self.page(next)?;
            next = child(&page, 0)?;
            let wanted = (row.size - bytes.len()).min(self.usable - 4);
            bytes.extend_from_slice(page.get(4..4 + wanted)?);
        }
        Some(bytes)
    }
}

struct Row<'a> {
    /// Its bytes in all.
    size: usize,
    /// Those that are in the page.
    local: &'a [u8],
    /// Where the others begin.
    overflow: u32,
}

impl<'a> Row<'a> {
    fn parse(database: &Database<'_>, page: &'a [u8], at: usize) -> Option<Self> {
        let (size, at) = varint(page, at)?;
        let (_, at) = varint(page, at)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_ROW)?;
        // "B-tree Cell Format": how much of a row stays in its page.
        let usable = database.usable;
        let (most, least) = (usable - 35, (usable - 12) * 32 / 255 - 23);
        let local = if size <= most {
            size
        } else {
            let fitting = least + (size - least) % (usable - 4);
            if fitting <= most { fitting } else { least }
        };
        let end = at.checked_add(local)?;
        let overflow = if local < size { child(page, end)? } else { 0 };
        Some(Self { size, local: page.get(at..end)?, overflow })
    }
}

/// A column of a row, of which these are the bytes, or the first of them.
fn column(wanted: usize, bytes: &[u8]) -> Option<&[u8]> {
    let (head, mut at) = varint(bytes, 0)?;
    let head = usize::try_from(head).ok()?;
    let mut value = head;
    for column in 0.. {
        if at >= head {
            return None;
        }
        let (kind, next) = varint(bytes, at)?;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            12.. => (kind - 12) / 2,
            _ => return None,
        };
        let end = value.checked_add(usize::try_from(size).ok()?)?;
        if column == wanted {
            return bytes.get(value..end);
        }
        (at, value) = (next, end);
    }
    None
}

fn child(page: &[u8], at: usize) -> Option<u32> {
    u32::try_from(number(page, at, 4)?).ok()
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// One to nine bytes, seven bits of each but the ninth; with the place after it.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0;
    for index in 0..9 {
        let byte = *bytes.get(at.checked_add(index)?)?;
        if index == 8 {
            return Some((number << 8 | u64::from(byte), at + 9));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, at + index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Instant};

    use super::*;

    /// Of podman 5.4.2, Debian 13: its own state after `podman run -d --name named --label team=red --label purpose=x
    /// --network none example.com/agents/coder:1 /bin/busybox sleep 1000`, the image with a label of its own.
    const PODMAN: &[u8] = include_bytes!("../../testdata/podman-5.4.2-db.sql");
    const ID: &[u8] = b"2ab72a5209c9348d5f19b9c1353d5d95dc33bce665dd84795beee912e6ea061d";
    const JSON: usize = 3;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn podmans_own_database_is_read() {
        let found = value(&file(PODMAN), "ContainerConfig", ID, JSON).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&found).unwrap();
        assert_eq!((&config["name"], &config["labels"]["team"]), (&"named".into(), &"red".into()));
        assert_eq!(value(&file(PODMAN), "ContainerConfig", ID, 1).as_deref(), Some(&b"named"[..]));
        assert_eq!(value(&file(PODMAN), "ContainerConfig", b"2a", JSON), None);
        assert_eq!(value(&file(PODMAN), "ContainerConfig", ID, 4), None);
        assert_eq!(value(&file(PODMAN), "Nothing", ID, JSON), None);
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_nothing() {
        for length in (0..PODMAN.len()).step_by(997) {
            let _ = value(&file(&PODMAN[..length]), "ContainerConfig", ID, JSON);
        }
        // Every head of a page at its largest and smallest, byte by byte: nothing panics, or goes on for ever.
        let started = Instant::now();
        for at in (0..PODMAN.len()).filter(|at| at % 4096 < 20 || *at < 140) {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = PODMAN.to_vec();
                damaged[at] = byte;
                let _ = value(&file(&damaged), "ContainerConfig", ID, JSON);
            }
        }
        println!("{:?}", started.elapsed());
        assert_eq!(value(&file(&vec![0xff; 200_000]), "x", b"y", 0), None);
    }

    #[test]
    fn pages_in_a_circle_end() {
        let mut bytes = vec![0; 4096];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..18].copy_from_slice(&4096_u16.to_be_bytes());
        bytes[FILE_HEAD] = INTERIOR;
        // No cell, and the page to the right is this one.
        bytes[FILE_HEAD + 8..FILE_HEAD + 12].copy_from_slice(&1_u32.to_be_bytes());
        assert_eq!(value(&file(&bytes), "x", b"y", 0), None);
    }

    #[test]
    fn numbers_of_all_lengths() {
        assert_eq!(varint(&[0x7f], 0), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0], 0), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9], 0), Some((u64::MAX, 9)));
        assert_eq!((varint(&[0xff; 8], 0), varint(&[], 0)), (None, None));
    }
}
