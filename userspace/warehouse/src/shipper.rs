//! The shipper: follows the journal into ClickHouse, exactly once.
//!
//! Each batch is a run of records. Its bounds are on disk before its rows are sent, its rows are made of nothing but
//! the journal, and each table's insert carries a token made of journal and bounds: so whatever is sent twice is the
//! same and taken once. The row in `shipped` comes last and says that all before it arrived.

use std::{future::Future, path::PathBuf, pin::pin, time::Duration};

use chaperone_journal::{Position, Reader, Seq};
use clickhouse::{Row, RowOwned, RowWrite};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    Warehouse, WarehouseError,
    batch::{Batch, FULL_RECORDS, Gatherer},
    progress::{
        Confirmed, Noted, Plan, position_file, read_plan, read_position, shipped_row, write_plan, write_position,
    },
    rows::Source,
};

/// How the shipper works.
#[derive(Clone, Copy, Debug)]
pub struct ShipperOptions {
    /// How long records wait for more of them: few large inserts cost ClickHouse much less than many small ones.
    pub linger: Duration,
    /// The first pause after a failure; each further one is twice as long …
    pub first_pause: Duration,
    /// … up to this.
    pub longest_pause: Duration,
    /// How long an insert may take, before it is sent again, to the next address if there are several.
    pub timeout: Duration,
    /// How long the rest may take when the daemon stops.
    pub farewell: Duration,
}

impl Default for ShipperOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(500),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(15),
            timeout: Duration::from_mins(1),
            farewell: Duration::from_secs(5),
        }
    }
}

/// How shipping is going: for metrics and `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ShipperStatus {
    /// Everything up to here is in ClickHouse.
    pub shipped: Position,
    /// The journal must be kept from here on.
    pub keep_from: Position,
    /// Records that are on disk and not in ClickHouse yet.
    pub lag_records: u64,
    /// About how many bytes they are.
    pub lag_bytes: u64,
    /// Batches since the start.
    pub batches: u64,
    /// Records since the start.
    pub records: u64,
    /// Bytes of those records, as the journal has them.
    pub bytes: u64,
    /// Failures since the start; after each, the batch is sent again.
    pub failures: u64,
    /// How often another address was gone to since the start.
    pub fail_overs: u64,
    /// When the last record that is in ClickHouse was written: what isn't there yet is younger. `None` before the first
    /// batch since the start.
    #[serde(with = "time::serde::rfc3339::option")]
    pub shipped_until: Option<OffsetDateTime>,
    /// The address that records go to.
    pub address: String,
    /// What the configuration says of how tables keep their rows and ClickHouse doesn't do, if there is something.
    pub retention_error: Option<String>,
    /// Why shipping stands still, if it does.
    pub error: Option<String>,
    /// When the last batch arrived.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_success: Option<OffsetDateTime>,
}

/// Ships one journal.
#[derive(Debug)]
pub struct Shipper {
    warehouse: Warehouse,
    options: ShipperOptions,
    dir: PathBuf,
    journal: Uuid,
    committed: watch::Receiver<Position>,
    status: watch::Sender<ShipperStatus>,
    is_migrated: bool,
    /// The store that the present address leads to.
    store: Option<String>,
}

/// Why `run` gives up on a piece of work.
enum Stop {
    Failed(WarehouseError),
    Farewell,
}

impl From<WarehouseError> for Stop {
    fn from(error: WarehouseError) -> Self {
        Self::Failed(error)
    }
}

impl Shipper {
    /// A shipper for the journal `journal` in `dir`, whose writer says in `committed` how far it is.
    pub fn new(
        warehouse: Warehouse,
        options: ShipperOptions,
        dir: impl Into<PathBuf>,
        journal: Uuid,
        committed: watch::Receiver<Position>,
    ) -> Self {
        let status = watch::Sender::default();
        Self { warehouse, options, dir: dir.into(), journal, committed, status, is_migrated: false, store: None }
    }

    /// How shipping is going, as it changes.
    pub fn status(&self) -> watch::Receiver<ShipperStatus> {
        self.status.subscribe()
    }

    /// Ships until `shutdown`, then what is left, if that is quick. Failures are in the status, and tried again: at the next
    /// address, if there are several, and after a pause once all of them failed.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut pause = self.options.first_pause;
        let addresses = self.warehouse.config().urls.len();
        let mut failed = 0;
        loop {
            let before = self.status.borrow().batches;
            let ended = tokio::select! {
                () = &mut shutdown => break,
                ended = self.ship_on() => ended,
            };
            let error = match ended {
                Err(Stop::Farewell) => break,
                Err(Stop::Failed(error)) => error,
                Ok(never) => match never {},
            };
            if self.status.borrow().batches > before {
                pause = self.options.first_pause;
                failed = 0;
            }
            failed += 1;
            self.note_failure(&error);
            self.is_migrated = false; // somebody may have dropped the database
            self.go_on_elsewhere(&error);
            if failed % addresses != 0 {
                continue;
            }
            tokio::select! {
                () = &mut shutdown => break,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(self.options.longest_pause);
        }
        match tokio::time::timeout(self.options.farewell, self.ship_rest()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "not everything was shipped: the next start will go on"),
            Err(_) => tracing::warn!("not everything could be shipped in time: the next start will go on"),
        }
    }

    /// Ships for ever, or until something fails or the writer is gone.
    async fn ship_on(&mut self) -> Result<std::convert::Infallible, Stop> {
        let mut gatherer = self.begin().await?;
        loop {
            let shipped = self.status.borrow().shipped.seq;
            let mut committed = self.committed.clone();
            if committed.wait_for(|position| position.seq > shipped).await.is_err() {
                return Err(Stop::Farewell);
            }
            if self.committed.borrow().seq.0 < shipped.0 + FULL_RECORDS {
                tokio::time::sleep(self.options.linger).await;
            }
            gatherer = self.ship_batch(gatherer).await?;
        }
    }

    async fn ship_rest(&mut self) -> Result<(), WarehouseError> {
        let mut gatherer = self.begin().await?;
        while self.status.borrow().shipped.seq < self.committed.borrow().seq {
            gatherer = self.ship_batch(gatherer).await?;
        }
        Ok(())
    }

    fn go_on_elsewhere(&self, error: &WarehouseError) {
        let from = self.warehouse.address().to_owned();
        self.warehouse.turn();
        let to = self.warehouse.address();
        if from != to {
            tracing::warn!(%error, from, to, "records go to the next address of ClickHouse's");
            self.status.send_modify(|status| status.fail_overs += 1);
        }
    }

    /// Learns how far things are, from ClickHouse, and completes the batch that was under way.
    async fn begin(&mut self) -> Result<Gatherer, WarehouseError> {
        self.refresh();
        if !self.is_migrated {
            self.warehouse.migrate().await?;
            self.keep_rows().await;
            self.is_migrated = true;
        }
        let confirmed = self.warehouse.confirmed(self.journal).await?;
        self.check_store(confirmed).await?;
        let ours = self.committed.borrow().seq;
        if confirmed.shipped.seq > ours {
            return Err(WarehouseError::Ahead { journal: self.journal, shipped: confirmed.shipped.seq, ours });
        }
        let (dir, source) = (self.dir.clone(), self.source());
        let gatherer = blocking(move || Gatherer::begin(&dir, source, confirmed.shipped, confirmed.floor)).await?;
        self.note_progress(confirmed, 0, 0);
        match read_plan(&self.dir)? {
            Some(plan) if plan.from == confirmed.shipped.seq && plan.to > plan.from && plan.to <= ours => {
                self.ship(gatherer, plan.to, true).await
            }
            _ => Ok(gatherer),
        }
    }

    /// Whether this address leads to where records went before. Noted before the first row is sent, so that a batch never
    /// is in two stores.
    async fn check_store(&mut self, confirmed: Confirmed) -> Result<(), WarehouseError> {
        self.store = self.warehouse.store().await?;
        let file = position_file(&self.dir);
        let url = self.warehouse.address().to_owned();
        if self.warehouse.config().has_several() {
            if self.store.is_none() {
                let why = "ClickHouse gives the tables of this database no ids, by which the same store is known at several \
                           addresses: name a database with the engine Atomic, or one address";
                return Err(WarehouseError::Config { setting: "urls".into(), why: why.into() });
            }
            let noted = read_position(&self.dir)?.unwrap_or_default();
            if noted.store.is_some() && noted.store != self.store {
                return Err(WarehouseError::ForeignStore { url, file });
            }
            let (found, ours) = (confirmed.shipped.seq, noted.confirmed.shipped.seq);
            if noted.store.is_some() && found < ours {
                return Err(WarehouseError::Behind { url, journal: self.journal, found, confirmed: ours, file });
            }
        }
        write_position(&self.dir, &Noted { confirmed, store: self.store.clone() })
    }

    /// Has tables keep their rows as configured. What can't be done is told, and records are shipped all the same: rows
    /// that stay longer than they should are no loss.
    async fn keep_rows(&self) {
        let kept = self.warehouse.keep_rows().await;
        if let Err(error) = &kept {
            tracing::error!(%error, "tables of ClickHouse's keep their rows otherwise than the configuration says");
        }
        let error = kept.err().map(|error| error.to_string());
        self.status.send_modify(|status| status.retention_error = error);
    }

    /// Takes a password or certificates that were exchanged. A file that can't be used is told; what was in force stays.
    fn refresh(&self) {
        if let Err(error) = self.warehouse.refresh() {
            tracing::error!(%error, "a file for ClickHouse has changed and can't be used: what was in it before stays in force");
        }
    }

    async fn ship_batch(&mut self, gatherer: Gatherer) -> Result<Gatherer, WarehouseError> {
        self.refresh();
        let limit = self.committed.borrow().seq;
        self.ship(gatherer, limit, false).await
    }

    async fn ship(&mut self, mut gatherer: Gatherer, limit: Seq, exactly: bool) -> Result<Gatherer, WarehouseError> {
        let (gatherer, batch) = blocking(move || {
            let batch = gatherer.gather(limit, exactly)?;
            Ok((gatherer, batch))
        })
        .await?;
        if batch.records == 0 {
            return Ok(gatherer);
        }
        write_plan(&self.dir, Plan { from: batch.from.seq, to: batch.to.seq })?;
        self.insert(&batch).await?;
        self.confirm(&batch).await?;
        Ok(gatherer)
    }

    /// Sends a batch's rows.
    pub(crate) async fn insert(&self, batch: &Batch) -> Result<(), WarehouseError> {
        // All at a time: none waits for the others' round trips. Whoever reads may see a call before its body.
        tokio::try_join!(
            self.insert_rows("body_chunks", batch, &batch.body_chunks),
            self.insert_rows("body_parts", batch, &batch.body_parts),
            self.insert_rows("session_starts", batch, &batch.session_starts),
            self.insert_rows("session_ends", batch, &batch.session_ends),
            self.insert_rows("session_identities", batch, &batch.session_identities),
            self.insert_rows("command_starts", batch, &batch.command_starts),
            self.insert_rows("command_ends", batch, &batch.command_ends),
            self.insert_rows("commands_lost", batch, &batch.commands_lost),
            self.insert_rows("connection_opens", batch, &batch.connection_opens),
            self.insert_rows("connection_closes", batch, &batch.connection_closes),
            self.insert_rows("decisions", batch, &batch.decisions),
            self.insert_rows("calls", batch, &batch.calls),
            self.insert_rows("checkpoints", batch, &batch.checkpoints),
            self.insert_rows("ledger", batch, &batch.ledger),
        )?;
        Ok(())
    }

    /// Says that a batch arrived.
    async fn confirm(&self, batch: &Batch) -> Result<(), WarehouseError> {
        let confirmed = Confirmed { shipped: batch.to, floor: batch.floor };
        self.insert_rows("shipped", batch, &[shipped_row(&self.source(), confirmed)]).await?;
        write_position(&self.dir, &Noted { confirmed, store: self.store.clone() })?;
        if batch.orphans > 0 {
            tracing::warn!(calls = batch.orphans, "calls whose beginning is not in the journal are in the ledger only");
        }
        self.note_progress(confirmed, batch.records, batch.bytes);
        let until = OffsetDateTime::from_unix_timestamp_nanos(i128::from(batch.until_us) * 1000).ok();
        self.status.send_modify(|status| status.shipped_until = until);
        Ok(())
    }

    async fn insert_rows<T>(&self, table: &str, batch: &Batch, rows: &[T]) -> Result<(), WarehouseError>
    where
        T: RowOwned + RowWrite + for<'a> Row<Value<'a> = T>,
    {
        if rows.is_empty() {
            return Ok(());
        }
        let tenant = &self.warehouse.config().tenant;
        let token = format!("{tenant}:{}:{table}:{}-{}", self.journal, batch.from.seq.0 + 1, batch.to.seq);
        let sent = async {
            let insert = self.warehouse.client().insert::<T>(table).await?;
            let timeout = Some(self.options.timeout);
            let mut insert = insert.with_setting("insert_deduplication_token", token).with_timeouts(timeout, timeout);
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        // Boxed: fourteen of them are under way at a time.
        Box::pin(self.warehouse.within(self.options.timeout, &format!("insert into `{table}`"), sent)).await
    }

    fn source(&self) -> Source {
        let config = self.warehouse.config();
        Source { tenant: config.tenant.clone(), node: config.node.clone(), journal: self.journal }
    }

    fn note_progress(&self, confirmed: Confirmed, records: u64, bytes: u64) {
        let committed = *self.committed.borrow();
        let lag_bytes = self.bytes_between(confirmed.shipped, committed);
        self.status.send_modify(|status| {
            status.shipped = confirmed.shipped;
            status.keep_from = confirmed.floor;
            status.lag_records = committed.seq.0.saturating_sub(confirmed.shipped.seq.0);
            status.lag_bytes = lag_bytes;
            status.error = None;
            status.records += records;
            status.bytes += bytes;
            self.warehouse.address().clone_into(&mut status.address);
            if records > 0 {
                status.batches += 1;
                status.last_success = Some(OffsetDateTime::now_utc());
            }
        });
    }

    fn note_failure(&self, error: &WarehouseError) {
        let committed = *self.committed.borrow();
        let lag_bytes = self.bytes_between(self.status.borrow().shipped, committed);
        self.status.send_modify(|status| {
            if status.error.is_none() {
                tracing::warn!(%error, "shipping stands still; it is tried again");
            }
            status.error = Some(error.to_string());
            status.failures += 1;
            status.lag_records = committed.seq.0.saturating_sub(status.shipped.seq.0);
            status.lag_bytes = lag_bytes;
        });
    }

    fn bytes_between(&self, from: Position, to: Position) -> u64 {
        if from.segment == to.segment {
            return to.offset.saturating_sub(from.offset);
        }
        let sizes = Reader::segment_bytes(&self.dir, from.segment.max(1), to.segment);
        (sizes + to.offset).saturating_sub(from.offset)
    }
}

/// Runs `work`, which reads files, where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WarehouseError> + Send + 'static,
) -> Result<T, WarehouseError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| WarehouseError::Task(error.to_string()))?
}
