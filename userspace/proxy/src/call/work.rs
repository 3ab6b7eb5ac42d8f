//! Work on agents' bytes that takes long, off the threads that everybody's connections are served by.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::SemaphorePermit,
};

use crate::connection::quota::Quota;

/// What is done where it is: 32 KiB are hashed and decoded in less time than another thread takes to begin.
const AT_ONCE: usize = 32 << 10;

/// Leave to do what takes time in proportion to some bytes of an agent's. Of one session, one such thing is done at a time,
/// and no more in all than there are processors.
pub(crate) struct Leave<'a>(Option<[SemaphorePermit<'a>; 2]>);

impl<'a> Leave<'a> {
    /// For so many bytes, once it may be.
    pub(crate) async fn of(share: &'a Quota, bytes: usize) -> Self {
        Self(if bytes <= AT_ONCE { None } else { Some(share.work().await) })
    }

    /// Does it. What else its thread had to do goes on in another.
    pub(crate) fn run<T>(self, act: impl FnOnce() -> T) -> T {
        match (&self.0, Handle::current().runtime_flavor()) {
            (Some(_), RuntimeFlavor::MultiThread) => tokio::task::block_in_place(act),
            // It is short, or there is but one thread, a test's.
            _ => act(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Barrier, mpsc},
        time::Duration,
    };

    use super::*;
    use crate::{Limits, connection::quota::Quotas};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn one_sessions_long_work_keeps_neither_connections_nor_others_waiting() {
        let quotas = Quotas::new(&Limits::default(), Arc::default());
        let (one, other) = (quotas.of("/1", "a"), quotas.of("/2", "b"));
        let (end, ended) = mpsc::channel::<()>();
        let begun = Arc::new(Barrier::new(2));
        let long = tokio::spawn({
            let (one, begun) = (one.clone(), begun.clone());
            async move {
                Leave::of(&one, 1 << 20).await.run(move || {
                    begun.wait();
                    ended.recv_timeout(Duration::from_mins(1)).is_ok()
                })
            }
        });
        tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
        // The runtime's one thread serves others.
        assert_eq!(tokio::spawn(async { 1 }).await.unwrap(), 1);
        assert_eq!(Leave::of(&one, 1000).await.run(|| 2), 2, "what is short is not held up");
        let second = tokio::spawn(async move { Leave::of(&one, 1 << 20).await.run(|| 3) });
        tokio::task::yield_now().await;
        assert!(!second.is_finished(), "one at a time");
        if std::thread::available_parallelism().is_ok_and(|count| count.get() > 1) {
            assert_eq!(Leave::of(&other, 1 << 20).await.run(|| 4), 4);
        }
        end.send(()).unwrap();
        assert!(long.await.unwrap());
        assert_eq!(second.await.unwrap(), 3);
    }
}
