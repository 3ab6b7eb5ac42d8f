//! Events as the journal wrote them, from the ledger: for those who decide recorded calls again.

use chaperone_journal::Kind;
use chaperone_model::{Event, RecordedEvent};
use clickhouse::Row;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::{Warehouse, WarehouseError};

#[derive(Row, Deserialize)]
struct EventRow<'a> {
    payload: &'a str,
}

impl Warehouse {
    /// Shows all events of these names, of every journal, each journal's in its order; only those recorded at `since` or
    /// later, and a few minutes' before. Events of later versions are left out.
    pub async fn events(
        &self,
        names: &[&str],
        since: Option<OffsetDateTime>,
        mut see: impl FnMut(Event),
    ) -> Result<(), WarehouseError> {
        /// A record is written a moment after what it tells of.
        const SLACK: time::Duration = time::Duration::minutes(5);
        // The member `event` is the first of every event's JSON.
        let of: Vec<_> = names.iter().map(|_| "startsWith(payload, ?)").collect();
        let mut sql =
            format!("SELECT ?fields FROM ledger FINAL WHERE tenant = ? AND code = ? AND ({})", of.join(" OR "));
        let micros = |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
        if since.is_some() {
            sql.push_str(" AND at >= fromUnixTimestamp64Micro(?)");
        }
        sql.push_str(" ORDER BY tenant, journal, seq");
        let mut query = self.client().query(&sql).bind(&self.config().tenant).bind(Kind::Event.code());
        for name in names {
            query = query.bind(format!("{{\"event\":\"{name}\""));
        }
        if let Some(at) = since {
            query = query.bind(micros(at.saturating_sub(SLACK)));
        }
        let failed = |source| self.failed("read the recorded events", source);
        let mut rows = query.fetch::<EventRow<'_>>().map_err(failed)?;
        while let Some(row) = rows.next().await.map_err(failed)? {
            let event = RecordedEvent::read(row.payload.as_bytes(), true)
                .map_err(|error| WarehouseError::Row { table: "ledger", why: error.to_string() })?;
            if let Some(event) = event.known() {
                see(event);
            }
        }
        Ok(())
    }
}
