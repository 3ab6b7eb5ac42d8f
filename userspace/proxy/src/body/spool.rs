//! Bodies that must be held in memory, because they are hashed or decoded before they can be signed.
//!
//! Memory is taken as bytes arrive, whatever length was announced, and a body that arrives too slowly is given up: so what
//! an agent can keep from others by announcing much and sending little is nothing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::{
    body::error::BodyError,
    connection::quota::{Memory, QuotaExceeded},
    limits::Limits,
};

/// How long a body may take whatever its rate.
const GRACE: Duration = Duration::from_secs(15);
/// How long a body that has no room waits for others' to be gone.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// Why a body is not held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("the body broke off: {0}")]
    Broken(String),
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    #[error("the body arrived too slowly: {bytes} bytes in {} s, and at least {rate} a second are wanted (limits.body_rate)", .after.as_secs())]
    Slow { bytes: usize, after: Duration, rate: u64 },
    #[error("the body is larger than {limit} bytes, which must be held to be signed (limits.spool_bytes)")]
    TooLarge { limit: usize },
}

/// When a body of which so many bytes have arrived must have gone on: each byte earns it some time, and `body_timeout` is
/// the end for all.
#[allow(clippy::cast_precision_loss)] // a time needn't be exact
fn due(began: Instant, bytes: usize, limits: &Limits) -> Instant {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let earned = Duration::from_millis(bytes.saturating_mul(1000) / limits.body_rate.max(1));
    began + (GRACE + earned).min(limits.body_timeout)
}

/// Reads a body into memory that grows with it. What there was of it stays, if that fails.
pub(crate) async fn read<B>(
    body: &mut B,
    memory: &mut Memory,
    version: Version,
    limits: &Limits,
) -> (Bytes, Result<(), SpoolError>)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let limit = limits.spool_bytes;
    let announced = body.size_hint().exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if announced.is_some_and(|size| size > limit) {
        return (Bytes::new(), Err(SpoolError::TooLarge { limit }));
    }
    let began = Instant::now();
    let mut whole = Gathered { first: None, more: BytesMut::new(), announced: announced.unwrap_or(0) };
    while !body.is_end_stream() {
        let due = due(began, whole.len(), limits);
        let frame = match timeout_at(due, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => return (whole.bytes(), Err(SpoolError::Broken(error.to_string()))),
            Err(_) => {
                let (bytes, after) = (whole.len(), began.elapsed());
                return (whole.bytes(), Err(SpoolError::Slow { bytes, after, rate: limits.body_rate }));
            }
        };
        let Ok(bytes) = frame.into_data() else {
            if version == Version::HTTP_2 {
                return (whole.bytes(), Err(SpoolError::Broken(BodyError::Trailers.to_string())));
            }
            continue;
        };
        if whole.len() + bytes.len() > limit {
            return (whole.bytes(), Err(SpoolError::TooLarge { limit }));
        }
        // While it waits nothing is read, and the agent's own window is what fills.
        if let Err(error) = memory.grow_until(bytes.len(), Instant::now() + ROOM_WITHIN).await {
            return (whole.bytes(), Err(error.into()));
        }
        whole.push(bytes);
    }
    (whole.bytes(), Ok(()))
}

/// A body that comes in one frame, as most do, is not copied.
struct Gathered {
    first: Option<Bytes>,
    more: BytesMut,
    announced: usize,
}

impl Gathered {
    fn len(&self) -> usize {
        self.first.as_ref().map_or(0, Bytes::len) + self.more.len()
    }

    fn push(&mut self, bytes: Bytes) {
        match self.first.take() {
            None if self.more.is_empty() => self.first = Some(bytes),
            None => self.more.extend_from_slice(&bytes),
            Some(one) => {
                // Pages that nothing is written to take no memory yet.
                self.more.reserve(self.announced.max(one.len() + bytes.len()));
                self.more.extend_from_slice(&one);
                self.more.extend_from_slice(&bytes);
            }
        }
    }

    fn bytes(self) -> Bytes {
        self.first.unwrap_or_else(|| self.more.freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::connection::quota::{Quota, Quotas};

    fn share(limits: &Limits) -> (Quotas, Arc<Quota>, Arc<Quota>) {
        let quotas = Quotas::new(limits, Arc::default());
        let (one, other) = (quotas.of("/1", "a"), quotas.of("/2", "b"));
        (quotas, one, other)
    }

    /// A body that announces nothing and sends a frame every so often.
    fn slow(frames: usize, size: usize, every: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames = futures_util::stream::unfold(0, move |sent| async move {
            if sent == frames {
                return None;
            }
            tokio::time::sleep(every).await;
            Some((Ok(Frame::data(Bytes::from(vec![b'x'; size]))), sent + 1))
        });
        StreamBody::new(Box::pin(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_what_arrived() {
        let limits = Limits::default();
        let (quotas, one, _) = share(&limits);
        let mut memory = one.memory();
        let (bytes, read) =
            read(&mut slow(10, 10_000, Duration::from_millis(1)), &mut memory, Version::HTTP_11, &limits).await;
        read.unwrap();
        assert_eq!((bytes.len(), memory.bytes(), quotas.memory_used()), (100_000, 100_000, 100_000));
        drop(memory);
        assert_eq!(quotas.memory_used(), 0);
    }

    /// Four requests that announced 16 MiB each, and sent a byte now and then, once stopped everybody's.
    #[tokio::test(start_paused = true)]
    async fn slow_bodies_are_given_up_and_keep_nobody_waiting() {
        let limits = Limits::default();
        let (_quotas, one, other) = share(&limits);
        let slow: Vec<_> = (0..100)
            .map(|_| {
                let (mut memory, limits) = (one.memory(), limits.clone());
                tokio::spawn(async move {
                    let mut body = slow(usize::MAX, 1, Duration::from_secs(1));
                    read(&mut body, &mut memory, Version::HTTP_11, &limits).await.1
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        let mut memory = other.memory();
        let largest = limits.spool_bytes;
        let (bytes, read) = read(
            &mut http_body_util::Full::new(Bytes::from(vec![b'x'; largest])),
            &mut memory,
            Version::HTTP_11,
            &limits,
        )
        .await;
        read.unwrap();
        assert_eq!((bytes.len(), began.elapsed()), (largest, Duration::ZERO));
        for slow in slow {
            let error = slow.await.unwrap().unwrap_err();
            assert!(matches!(error, SpoolError::Slow { .. }), "{error}");
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_holds_its_share_is_told_so_and_others_go_on() {
        let limits = Limits::default();
        let (_quotas, one, other) = share(&limits);
        let mut held = Vec::new();
        let error = loop {
            let mut memory = one.memory();
            let mut body = http_body_util::Full::new(Bytes::from(vec![b'x'; limits.spool_bytes]));
            match read(&mut body, &mut memory, Version::HTTP_11, &limits).await.1 {
                Ok(()) => held.push(memory),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SpoolError::Quota(_)), "{error}");
        assert!(!held.is_empty());
        for share in [one, other] {
            let mut memory = share.memory();
            let (_, read) = read(&mut slow(1, 60_000, Duration::ZERO), &mut memory, Version::HTTP_11, &limits).await;
            read.unwrap();
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_not_read() {
        let limits = Limits { spool_bytes: 1000, ..Limits::default() };
        let (quotas, one, _) = share(&limits);
        let mut memory = one.memory();
        let mut announced = http_body_util::Full::new(Bytes::from(vec![b'x'; 1001]));
        assert!(matches!(
            read(&mut announced, &mut memory, Version::HTTP_11, &limits).await.1,
            Err(SpoolError::TooLarge { .. })
        ));
        let (bytes, read) = read(&mut slow(11, 100, Duration::ZERO), &mut memory, Version::HTTP_11, &limits).await;
        assert!(matches!(read, Err(SpoolError::TooLarge { .. })));
        assert_eq!((bytes.len(), quotas.memory_used()), (1000, 1000));
    }
}
