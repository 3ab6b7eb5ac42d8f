//! Work on agents' bytes that takes long, off the threads that everybody's connections are served by.

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::connection::quota::Quota;

/// What is done where it is: 32 KiB are hashed and decoded in less time than another thread takes to begin.
const AT_ONCE: usize = 32 << 10;

/// Does what takes time in proportion to so many bytes of an agent's. Of one session, one such thing is done at a time, and
/// no more in all than there are processors; what else its thread had to do goes on in another.
pub(crate) async fn run_bounded<T>(share: &Quota, bytes: usize, act: impl FnOnce() -> T + Send) -> T {
    if bytes <= AT_ONCE {
        return act();
    }
    let _turn = share.work().await;
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(act),
        // There is one thread, and it is a test's.
        _ => act(),
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
                run_bounded(&one, 1 << 20, move || {
                    begun.wait();
                    ended.recv_timeout(Duration::from_mins(1)).is_ok()
                })
                .await
            }
        });
        tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
        // The runtime's one thread serves others.
        assert_eq!(tokio::spawn(async { 1 }).await.unwrap(), 1);
        assert_eq!(run_bounded(&one, 1000, || 2).await, 2, "what is short is not held up");
        let second = tokio::spawn(async move { run_bounded(&one, 1 << 20, || 3).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished(), "one at a time");
        if std::thread::available_parallelism().is_ok_and(|count| count.get() > 1) {
            assert_eq!(run_bounded(&other, 1 << 20, || 4).await, 4);
        }
        end.send(()).unwrap();
        assert!(long.await.unwrap());
        assert_eq!(second.await.unwrap(), 3);
    }
}
