//! A handle to the warehouse.

use std::{
    future::Future,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clickhouse::{Client, error::Error};

use crate::{
    WarehouseConfig, WarehouseError,
    transport::{Stamp, clients},
};

/// A server that is well answers a small question sooner. One that takes connections and never answers is left for the
/// next address after this.
const QUICK: Duration = Duration::from_secs(5);
/// The oldest version on which migrations 1 to 10 were seen to work; the later ones were run on 26.9 alone.
const OLDEST: (u32, u32) = (24, 8);

/// The warehouse. Cheap to clone; connections are made when needed, to one of its addresses at a time: the first that is
/// well, until it no longer is. Clones go from address to address together.
#[derive(Clone)]
pub struct Warehouse {
    config: Arc<WarehouseConfig>,
    made: Arc<RwLock<Made>>,
    current: Arc<AtomicUsize>,
    quick: Duration,
}

/// The clients, of what the files say.
struct Made {
    stamp: Stamp,
    bare: Vec<Client>,
    chosen: Vec<Client>,
}

impl std::fmt::Debug for Warehouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warehouse").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Warehouse {
    /// A handle; talks to nobody yet.
    pub fn new(config: WarehouseConfig) -> Result<Self, WarehouseError> {
        let made = Arc::new(RwLock::new(Made::of(&config)?));
        Ok(Self { config: Arc::new(config), made, current: Arc::default(), quick: QUICK })
    }

    /// Its configuration.
    pub fn config(&self) -> &WarehouseConfig {
        &self.config
    }

    /// The address that is used now.
    pub fn address(&self) -> &str {
        self.config.urls.get(self.index()).map_or("", String::as_str)
    }

    /// Asks ClickHouse for its version: whether it is there and lets us in, and is one that we can work with.
    pub async fn ping(&self) -> Result<String, WarehouseError> {
        let asked = self.bare_client();
        let asked = asked.query("SELECT version()").fetch_one::<String>();
        let version = self.quickly("ask for its version", asked).await?;
        let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).take(2).collect();
        match *numbers.as_slice() {
            [major, minor] if (major, minor) < OLDEST => {
                let (major, minor) = OLDEST;
                Err(WarehouseError::OldServer { url: self.address().into(), found: version, oldest: (major, minor) })
            }
            _ => Ok(version),
        }
    }

    /// Goes to the first address, from the present one on, that answers; the last one's failure if none does.
    pub async fn reach(&self) -> Result<(), WarehouseError> {
        let mut asked = 1;
        loop {
            match self.ping().await {
                Ok(_) => return Ok(()),
                Err(error) if asked == self.config.urls.len() => return Err(error),
                Err(_) => self.turn(),
            }
            asked += 1;
        }
    }

    /// Goes to the next address; with one address to that one again.
    pub(crate) fn turn(&self) {
        let next = (self.index() + 1) % self.config.urls.len().max(1);
        self.current.store(next, Ordering::Relaxed);
    }

    /// Makes the clients anew if a file that they are made of has changed. What is wrong with a new file is told, and the
    /// clients stay.
    pub(crate) fn refresh(&self) -> Result<(), WarehouseError> {
        let stamp = Stamp::of(&self.config);
        if self.made.read().is_ok_and(|made| made.stamp == stamp) {
            return Ok(());
        }
        let made = Made::of(&self.config)?;
        *self.made.write().unwrap_or_else(std::sync::PoisonError::into_inner) = made;
        tracing::info!("the files for ClickHouse (password, certificates) have changed: they are in force");
        Ok(())
    }

    /// The client of the present address.
    pub(crate) fn client(&self) -> Client {
        let made = self.made.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        made.chosen[self.index()].clone()
    }

    /// The same without a database chosen.
    pub(crate) fn bare_client(&self) -> Client {
        let made = self.made.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        made.bare[self.index()].clone()
    }

    /// The answer to a small question, which a server that is well gives at once.
    pub(crate) async fn quickly<T>(
        &self,
        doing: &str,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, WarehouseError> {
        self.within(self.quick, doing, asked).await
    }

    /// The answer, if it comes in time.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        doing: &str,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, WarehouseError> {
        let Ok(answer) = tokio::time::timeout(limit, asked).await else {
            let url = self.address().to_owned();
            return Err(WarehouseError::Silent { doing: doing.to_owned(), url, limit });
        };
        answer.map_err(|source| self.failed(doing, source))
    }

    pub(crate) fn failed(&self, doing: &str, source: Error) -> WarehouseError {
        WarehouseError::ClickHouse { doing: doing.to_owned(), url: self.address().to_owned(), source }
    }

    /// For tests: how long a small question may take.
    #[cfg(test)]
    pub(crate) fn with_quick(mut self, quick: Duration) -> Self {
        self.quick = quick;
        self
    }

    /// For tests: with answers that a few lines can make.
    #[cfg(test)]
    pub(crate) fn without_compression(self) -> Self {
        let plain = |clients: &mut Vec<Client>| {
            for client in clients {
                *client = client.clone().with_compression(clickhouse::Compression::None);
            }
        };
        if let Ok(mut made) = self.made.write() {
            plain(&mut made.bare);
            plain(&mut made.chosen);
        }
        self
    }

    fn index(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }
}

impl Made {
    fn of(config: &WarehouseConfig) -> Result<Self, WarehouseError> {
        // Read before the files are, so that what changes meanwhile is seen the next time.
        let stamp = Stamp::of(config);
        let bare = clients(config)?;
        let chosen = bare.iter().map(|client| client.clone().with_database(&config.database)).collect();
        Ok(Self { stamp, bare, chosen })
    }
}
