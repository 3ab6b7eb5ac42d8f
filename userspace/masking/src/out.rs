//! What goes on of one piece that came: slices of it, and what was put in between.

use bytes::Bytes;

/// A piece that is being read. What isn't replaced or held goes on as a slice of it.
pub(crate) struct Out<'a> {
    pub(crate) chunk: &'a Bytes,
    /// What is before has gone on, or is taken away.
    from: usize,
    given: &'a mut Vec<Bytes>,
}

impl<'a> Out<'a> {
    pub(crate) fn new(chunk: &'a Bytes, out: &'a mut Vec<Bytes>) -> Self {
        Self { chunk, from: 0, given: out }
    }

    /// Passes on all that is before.
    pub(crate) fn pass_to(&mut self, at: usize) {
        if self.from < at {
            self.given.push(self.chunk.slice(self.from..at));
            self.from = at;
        }
    }

    /// Takes away what is before and has not been passed on.
    pub(crate) fn drop_to(&mut self, at: usize) {
        self.from = self.from.max(at);
    }

    /// Puts something in at where the piece has been passed on or taken away to.
    pub(crate) fn put(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.given.push(bytes);
        }
    }

    /// Puts something in the place of a part of it.
    pub(crate) fn replace(&mut self, start: usize, end: usize, by: impl Into<Bytes>) {
        self.pass_to(start);
        self.drop_to(end);
        self.put(by);
    }
}
