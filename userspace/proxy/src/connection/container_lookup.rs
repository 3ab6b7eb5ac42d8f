//! Finding out what a container is: once for all connections that wait for it, and no longer than is good.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chaperone_identity::Containers;
use chaperone_model::Container;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// How long a description is waited for. It takes milliseconds, unless a disk or a user's files make it long.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are read at once: of engines that root runs, and of users' own, who can put there what they like.
const ROOTS_AT_ONCE: usize = 8;
const USERS_AT_ONCE: usize = 2;

type Read = dyn Fn(&str) -> Option<Container> + Send + Sync;
/// Nothing until it is read.
type Found = Option<Option<Arc<Container>>>;

/// Reads descriptions.
#[derive(Clone)]
pub(crate) struct ContainerLookup {
    read: Arc<Read>,
    under_way: Arc<Mutex<HashMap<String, watch::Receiver<Found>>>>,
    roots: Arc<Semaphore>,
    users: Arc<Semaphore>,
}

impl ContainerLookup {
    pub(crate) fn new(containers: Containers) -> Self {
        Self::by(move |path| containers.described(path))
    }

    fn by(read: impl Fn(&str) -> Option<Container> + Send + Sync + 'static) -> Self {
        Self {
            read: Arc::new(read),
            under_way: Arc::default(),
            roots: Arc::new(Semaphore::new(ROOTS_AT_ONCE)),
            users: Arc::new(Semaphore::new(USERS_AT_ONCE)),
        }
    }

    /// The description of the container that the cgroup at `path` is, or is in; nothing if there is none, or none in time.
    pub(crate) async fn of(&self, path: &str) -> Option<Arc<Container>> {
        let mut found = self.under_way(path);
        match timeout(PATIENCE, found.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone().flatten(),
            // It panicked, which is told.
            Ok(Err(_)) => None,
            Err(_) => {
                tracing::warn!(cgroup = path, "what this container is could not be read in time, and isn't told");
                None
            }
        }
    }

    fn under_way(&self, path: &str) -> watch::Receiver<Found> {
        let mut under_way = self.under_way.lock();
        if let Some(found) = under_way.get(path) {
            return found.clone();
        }
        let (tell, found) = watch::channel(None);
        under_way.insert(path.to_owned(), found.clone());
        tokio::spawn(self.clone().find(path.to_owned(), tell));
        found
    }

    async fn find(self, path: String, tell: watch::Sender<Found>) {
        let at_once = if Containers::is_users(&path) { &self.users } else { &self.roots };
        let permit = at_once.clone().acquire_owned().await;
        {
            let mut under_way = self.under_way.lock();
            // The one that is kept here: nobody waits for it any more.
            if tell.receiver_count() == 1 {
                under_way.remove(&path);
                return;
            }
        }
        let (read, of) = (self.read.clone(), path.clone());
        let reading = tokio::task::spawn_blocking(move || {
            // Kept until it is done, however long that takes.
            let _permit = permit;
            read(&of)
        });
        let found =
            reading.await.inspect_err(|error| tracing::error!(%error, "BUG: reading what a container is panicked"));
        self.under_way.lock().remove(&path);
        // Whoever waited may have given up.
        let _ = tell.send(Some(found.ok().flatten().map(Arc::new)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use futures_util::future::join_all;

    use super::*;

    /// Reads once it is let; counts.
    fn reader() -> (ContainerLookup, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let ((go, wait), read) = (mpsc::channel::<()>(), Arc::<AtomicUsize>::default());
        let (wait, counted) = (Mutex::new(wait), read.clone());
        let descriptions = ContainerLookup::by(move |path| {
            counted.fetch_add(1, Ordering::SeqCst);
            wait.lock().recv().ok()?;
            Some(Container { id: path.to_owned(), ..Container::default() })
        });
        (descriptions, go, read)
    }

    #[tokio::test]
    async fn it_is_read_once_for_all_who_wait() {
        let (descriptions, go, read) = reader();
        let waiting = join_all((0..100).map(|_| descriptions.of("/a")));
        let told = async {
            tokio::task::yield_now().await;
            go.send(()).unwrap();
        };
        let (found, ()) = tokio::join!(waiting, told);
        assert!(found.iter().all(|found| found.as_ref().unwrap().id == "/a"));
        assert_eq!(read.load(Ordering::SeqCst), 1);
        go.send(()).unwrap();
        assert_eq!(descriptions.of("/a").await.unwrap().id, "/a");
        assert_eq!(read.load(Ordering::SeqCst), 2);
        assert!(descriptions.under_way.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_and_few_are_read_at_once() {
        let (descriptions, go, read) = reader();
        let path = |number: usize| format!("/user@1000.service/libpod-{number:064}");
        let paths: Vec<_> = (0..USERS_AT_ONCE * 4).map(path).collect();
        let waiting = join_all(paths.iter().map(|path| descriptions.of(path)));
        let pass = async {
            while read.load(Ordering::SeqCst) < USERS_AT_ONCE {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(PATIENCE).await;
        };
        let (found, ()) = tokio::join!(waiting, pass);
        assert!(found.iter().all(Option::is_none));
        assert_eq!(read.load(Ordering::SeqCst), USERS_AT_ONCE);
        // Those that were not begun never are.
        for _ in 0..USERS_AT_ONCE {
            go.send(()).unwrap();
        }
        while !descriptions.under_way.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(read.load(Ordering::SeqCst), USERS_AT_ONCE);
    }
}
