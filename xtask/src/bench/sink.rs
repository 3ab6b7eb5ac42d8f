//! Takes uploads and throws them away: nginx can't by itself without writing them to disk or answering too early.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};

/// Listens at `path` for as long as the process lives.
pub(super) fn start(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // The other end is our own nginx: when it goes, so does this.
                let _ = serve(&stream);
            });
        }
    });
    Ok(())
}

fn serve(stream: &UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(("content-length", value)) = line.to_ascii_lowercase().split_once(':') {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let taken = discard(&mut reader, length)?;
        let status = if taken == length { "200 OK" } else { "400 Bad Request" };
        (&*stream).write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    }
}

fn discard(reader: &mut BufReader<&UnixStream>, length: u64) -> std::io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let have = reader.fill_buf()?.len();
        if have == 0 {
            break;
        }
        let used = have.min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.consume(used);
        left -= used as u64;
    }
    Ok(length - left)
}
