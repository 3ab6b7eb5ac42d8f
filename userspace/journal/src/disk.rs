//! Files: segments, the lock, aligned memory, and the seam where tests let the disk fail.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl},
    unistd::{Whence, lseek},
};

use crate::{JournalError, error::Context as _};

/// What O_DIRECT writes are aligned to: the page size, which every device's logical block divides.
pub(crate) const BLOCK: usize = 4096;
const LOCK_FILE: &str = "journal.lock";
const SUFFIX: &str = "segment";

/// The operating system's part of writing: what tests replace to let a disk fail.
pub(crate) trait Disk: Send {
    /// Writes all of `bytes` at `offset`.
    fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Waits until what was written to `file` is durable.
    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Takes `bytes` of room for `file` for good.
    fn allocate(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        preallocate(file, bytes)
    }
}

/// The real thing.
#[derive(Debug)]
pub(crate) struct OsDisk;

impl Disk for OsDisk {}

fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        // Filesystems without fallocate: zeros take the room as well.
        Err(Errno::EOPNOTSUPP) => {
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < bytes {
                let n = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
                file.write_all_at(&zeros[..n], at)?;
                at += n as u64;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

/// A segment's path.
pub(crate) fn segment_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:012}.{SUFFIX}"))
}

/// The numbers of the segments in `dir`, ascending.
pub(crate) fn segments(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context("list", dir)? {
        let name = entry.context("list", dir)?.file_name();
        let index = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok());
        // `parse` also takes what `segment_path` would never write, such as `+1`.
        if let Some(index) = index.filter(|index| segment_path(dir, *index).file_name() == Some(&name)) {
            found.push(index);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes a new segment with its room taken, durable down to its name.
pub(crate) fn create_segment(disk: &mut dyn Disk, dir: &Path, index: u64, bytes: u64) -> Result<(), JournalError> {
    let path = segment_path(dir, index);
    let new = path.with_extension("new");
    let made = (|| {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        disk.allocate(&file, bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    })();
    made.map_err(|error: io::Error| {
        drop(fs::remove_file(&new));
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
                JournalError::Full { dir: std::sync::Arc::new(dir.to_owned()) }
            }
            _ => JournalError::io("preallocate the segment", path, error),
        }
    })
}

/// Opens a segment for writing, past the page cache if `direct` and the filesystem lets us. Tells whether it did.
pub(crate) fn open_segment(path: &Path, direct: bool) -> Result<(File, bool), JournalError> {
    let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
    if direct {
        match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => return Ok((other.context("open", path)?, true)),
        }
    }
    Ok((open(0).context("open", path)?, false))
}

/// Makes the journal's folder, readable by its owner alone.
pub(crate) fn make_dir(dir: &Path) -> Result<(), JournalError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context("create the journal's folder", dir)
}

/// The lock of the journal's one writer, held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File); // held, not used

impl Lock {
    pub(crate) fn take(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .context("open", &path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => Ok(Self(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(JournalError::Locked { dir: dir.to_owned() }),
            Err(error) => Err(JournalError::io("lock", path, error)),
        }
    }
}

/// Whether a writer has the journal open; asks without ever holding the lock, so that no start is disturbed.
pub(crate) fn has_writer(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join(LOCK_FILE)) else { return false };
    let mut lock = whole_file(libc::F_RDLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && lock.l_type != whole_file(libc::F_UNLCK).l_type
}

#[allow(clippy::cast_possible_truncation)] // small constants, whose C type differs by platform
fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The first and the last byte that isn't zero, from `from` on. Holes and preallocated room are not read.
pub(crate) fn non_zero(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let end = file.metadata()?.len();
    let mut buffer = vec![0; 256 << 10];
    let mut found: Option<(u64, u64)> = None;
    let mut at = from;
    while at < end {
        at = match seek(file.as_fd(), at, Whence::SeekData) {
            Ok(data) => data.max(at),
            Err(Errno::ENXIO) => break, // nothing but a hole up to the end
            Err(_) => at,               // no support: read everything
        };
        let hole = seek(file.as_fd(), at, Whence::SeekHole).unwrap_or(end).min(end).max(at + 1);
        while at < hole {
            let n = usize::try_from(hole - at).unwrap_or(usize::MAX).min(buffer.len());
            let n = file.read_at(&mut buffer[..n], at)?;
            if n == 0 {
                return Ok(found);
            }
            if let Some(first) = buffer[..n].iter().position(|byte| *byte != 0) {
                let last = buffer[..n].iter().rposition(|byte| *byte != 0).unwrap_or(first);
                found = Some((found.map_or(at + first as u64, |(first, _)| first), at + last as u64));
            }
            at += n as u64;
        }
    }
    Ok(found)
}

fn seek(file: impl AsFd, at: u64, whence: Whence) -> Result<u64, Errno> {
    let at = i64::try_from(at).map_err(|_| Errno::EINVAL)?;
    Ok(lseek(file, at, whence)?.unsigned_abs())
}

/// Memory that O_DIRECT takes: it begins at a multiple of [`BLOCK`].
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `capacity` must be a multiple of [`BLOCK`].
    pub(crate) fn new(capacity: usize) -> Self {
        debug_assert_eq!(capacity % BLOCK, 0);
        let memory = vec![0; capacity + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        Self { memory, start, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn room(&self) -> usize {
        self.memory.len() - BLOCK - self.len
    }

    /// The next `n` bytes, to be filled.
    pub(crate) fn extend(&mut self, n: usize) -> &mut [u8] {
        let at = self.start + self.len;
        self.len += n;
        &mut self.memory[at..at + n]
    }

    /// The content from `start`, a block's beginning, on, padded with zeros to whole blocks.
    pub(crate) fn blocks(&mut self, start: usize) -> &[u8] {
        debug_assert_eq!(start % BLOCK, 0);
        let padded = self.start + self.len.next_multiple_of(BLOCK);
        self.memory[self.start + self.len..padded].fill(0);
        &self.memory[self.start + start..padded]
    }

    /// Drops all whole blocks and keeps the begun one at the front; tells how many bytes went.
    pub(crate) fn keep_begun_block(&mut self) -> usize {
        let whole = self.len / BLOCK * BLOCK;
        self.memory.copy_within(self.start + whole..self.start + self.len, self.start);
        self.len -= whole;
        whole
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_seen_from_outside() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_writer(dir.path()));
        let lock = Lock::take(dir.path()).unwrap();
        assert!(has_writer(dir.path()));
        assert!(matches!(Lock::take(dir.path()), Err(JournalError::Locked { .. })));
        drop(lock);
        assert!(!has_writer(dir.path()));
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn bytes_in_a_preallocated_file_are_found() {
        let dir = tempfile::tempdir().unwrap();
        create_segment(&mut OsDisk, dir.path(), 3, 1 << 20).unwrap();
        assert_eq!(segments(dir.path()).unwrap(), [3]);
        let path = segment_path(dir.path(), 3);
        let file = File::open(&path).unwrap();
        assert_eq!(non_zero(&file, 0).unwrap(), None);
        let (writer, _) = open_segment(&path, false).unwrap();
        writer.write_all_at(b"x", 70_000).unwrap();
        writer.write_all_at(b"y", 900_000).unwrap();
        assert_eq!(non_zero(&file, 0).unwrap(), Some((70_000, 900_000)));
        assert_eq!(non_zero(&file, 70_001).unwrap(), Some((900_000, 900_000)));
    }

    #[test]
    fn the_aligned_buffer_keeps_its_begun_block() {
        let mut buffer = AlignedBuffer::new(2 * BLOCK);
        buffer.extend(BLOCK + 3).fill(7);
        assert_eq!(buffer.blocks(0).len(), 2 * BLOCK);
        assert_eq!(buffer.blocks(0).as_ptr().align_offset(BLOCK), 0);
        assert_eq!(buffer.blocks(0)[BLOCK + 3], 0);
        assert_eq!(buffer.keep_begun_block(), BLOCK);
        assert_eq!((buffer.len(), buffer.room()), (3, 2 * BLOCK - 3));
        assert_eq!(buffer.blocks(0)[..4], [7, 7, 7, 0]);
    }
}
