//! What happens to AWS's answer between AWS and the agent: one transform after the other, in one fixed order, and then
//! the tap that records what the agent gets.
//!
//! A transform says in [`head`](BodyTransform::head) what it does to the answer's length, checksums and entity tag;
//! nobody else touches those.

use bytes::Bytes;
use http::{HeaderMap, response};

/// Why an answer doesn't go on. Nothing of it that the transform has not given out reaches the agent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransformError(pub String);

/// How a transform works on one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Not at all: the body goes on untouched.
    Untouched,
    /// While it streams. The head has gone out before the first byte.
    Streaming,
    /// The head waits until the body has been read to its end, because what the body is decides about it.
    Whole,
}

/// One kind of change to answers.
pub trait BodyTransform: Send {
    /// Whether the body must be readable, so that the request may not ask for a compressed one.
    fn reads(&self) -> bool;

    /// Changes what the answer's head says besides: before it is recorded.
    fn fields(&mut self, _head: &mut response::Parts) {}

    /// Changes the body's trailers, after its end.
    fn trailers(&mut self, _trailers: &mut HeaderMap) {}

    /// Looks at the answer's head, and changes it where the body will change.
    fn head(&mut self, head: &mut response::Parts) -> Mode;

    /// Takes bytes of the body, and appends what goes on now to `out`.
    fn push(&mut self, bytes: Bytes, out: &mut Vec<Bytes>) -> Result<(), TransformError>;

    /// The end of the body: what is still to go on.
    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError>;

    /// After the end of a body that was read as a [`Whole`](Mode::Whole): the head, which has not gone out yet.
    fn settle(&mut self, _head: &mut response::Parts) {}
}

/// The transforms of one answer, in their order.
#[derive(Default)]
pub struct Transforms(Vec<Box<dyn BodyTransform>>);

impl Transforms {
    /// Adds one that works on what those before it give.
    pub fn add(&mut self, transform: Option<Box<dyn BodyTransform>>) {
        self.0.extend(transform);
    }

    /// Whether one of them must read the body.
    pub fn read(&self) -> bool {
        self.0.iter().any(|transform| transform.reads())
    }

    /// Has them change what the head says besides the body.
    pub fn fields(&mut self, head: &mut response::Parts) {
        self.0.iter_mut().for_each(|transform| transform.fields(head));
    }

    /// Has them change the trailers.
    pub fn trailers(&mut self, trailers: &mut HeaderMap) {
        self.0.iter_mut().for_each(|transform| transform.trailers(trailers));
    }

    /// Shows them the head. Those with nothing to do are gone afterwards.
    pub fn head(&mut self, head: &mut response::Parts) -> Mode {
        let mut mode = Mode::Untouched;
        self.0.retain_mut(|transform| {
            let one = transform.head(head);
            mode = mode.max(one);
            one != Mode::Untouched
        });
        mode
    }

    /// Passes bytes through all of them.
    pub fn push(&mut self, bytes: Bytes, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        push_from(&mut self.0, bytes, out)
    }

    /// Ends all of them, the first one first.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        for place in 0..self.0.len() {
            let mut given = Vec::new();
            self.0[place].finish(&mut given)?;
            for bytes in given {
                push_from(&mut self.0[place + 1..], bytes, out)?;
            }
        }
        Ok(())
    }

    /// Shows them the head of a whole body once more, after its end.
    pub fn settle(&mut self, head: &mut response::Parts) {
        for transform in &mut self.0 {
            transform.settle(head);
        }
    }
}

fn push_from(
    transforms: &mut [Box<dyn BodyTransform>],
    bytes: Bytes,
    out: &mut Vec<Bytes>,
) -> Result<(), TransformError> {
    let Some((first, rest)) = transforms.split_first_mut() else {
        if !bytes.is_empty() {
            out.push(bytes);
        }
        return Ok(());
    };
    let mut given = Vec::new();
    first.push(bytes, &mut given)?;
    given.into_iter().try_for_each(|bytes| push_from(rest, bytes, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts its mark before each piece and at the end.
    struct Mark(&'static str, Mode);

    impl BodyTransform for Mark {
        fn reads(&self) -> bool {
            true
        }

        fn head(&mut self, _: &mut response::Parts) -> Mode {
            self.1
        }

        fn push(&mut self, bytes: Bytes, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
            out.extend([Bytes::from_static(self.0.as_bytes()), bytes]);
            Ok(())
        }

        fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
            out.push(Bytes::from_static(self.0.as_bytes()));
            Ok(())
        }
    }

    #[test]
    fn each_works_on_what_the_one_before_gives() {
        let mut all = Transforms::default();
        all.add(Some(Box::new(Mark("a", Mode::Streaming))));
        all.add(Some(Box::new(Mark("-", Mode::Untouched))));
        all.add(Some(Box::new(Mark("b", Mode::Whole))));
        let (mut head, ()) = http::Response::new(()).into_parts();
        assert_eq!(all.head(&mut head), Mode::Whole);
        let mut out = Vec::new();
        all.push("x".into(), &mut out).unwrap();
        all.finish(&mut out).unwrap();
        assert_eq!(out.concat(), b"babxbab");
    }
}
