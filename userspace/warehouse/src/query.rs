//! The warehouse, asked as any record is.

use bytes::Bytes;
use chaperone_journal::{CallFilter, CallRow, CommandRow, ConnectionRow, Kind, SessionRow};
use chaperone_model::{CallId, Event, RecordedEvent, SessionId};
use chaperone_query::{
    Answer, Arguments, Asked, Body, EventFilter, Query, QueryError, Question, RecordedExchange, Rows, SLACK,
};
use clickhouse::{Row, query::RowCursor};
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use time::OffsetDateTime;

use crate::{Warehouse, WarehouseError};

#[derive(Row, Deserialize)]
struct EventRow<'a> {
    payload: &'a str,
}

impl From<WarehouseError> for QueryError {
    fn from(error: WarehouseError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Rows that come at once.
fn all<'a, T: Send + 'a>(rows: impl Future<Output = Result<Vec<T>, WarehouseError>> + Send + 'a) -> Rows<'a, T> {
    rows.map_ok(|rows| stream::iter(rows.into_iter().map(Ok))).try_flatten_stream().map_err(QueryError::from).boxed()
}

impl Query for Warehouse {
    fn sessions(&self) -> Rows<'_, SessionRow> {
        all(self.sessions())
    }

    fn calls(&self, filter: CallFilter, limit: u64) -> Rows<'_, CallRow> {
        all(async move { self.calls(&filter, limit).await })
    }

    fn commands(&self, session: Option<SessionId>, limit: u64) -> Rows<'_, CommandRow> {
        all(self.commands(session, limit))
    }

    fn connections(&self, session: Option<SessionId>, limit: u64) -> Rows<'_, ConnectionRow> {
        all(self.connections(session, limit))
    }

    fn exchange(&self, call: CallId) -> Asked<'_, Option<RecordedExchange>> {
        self.exchange(call).map_err(QueryError::from).boxed()
    }

    fn body(&self, call: CallId, body: Body) -> Rows<'_, Bytes> {
        let direction = match body {
            Body::Of(direction) => direction,
            Body::Framed => return stream::iter([Err(QueryError::NoFraming)]).boxed(),
        };
        self.body(call, direction)
            .map_ok(|body| {
                stream::try_unfold(body, async |mut body| {
                    let part = body.next_part().await?;
                    Ok::<_, WarehouseError>(part.map(|part| (part, body)))
                })
            })
            .try_flatten_stream()
            .map_err(QueryError::from)
            .boxed()
    }

    fn events(&self, wanted: EventFilter) -> Rows<'_, Event> {
        let rows = async move { self.event_rows(&wanted) };
        rows.map_ok(move |rows| {
            stream::try_unfold((self, rows), async |(warehouse, mut rows)| {
                let event = warehouse.next_event(&mut rows).await?;
                Ok::<_, WarehouseError>(event.map(|event| (event, (warehouse, rows))))
            })
        })
        .try_flatten_stream()
        .map_err(QueryError::from)
        .boxed()
    }

    fn answers(&self, _question: &Question) -> bool {
        true
    }

    fn ask(&self, question: &'static Question, arguments: Arguments, limit: u64) -> Asked<'_, Answer> {
        async move { Ok(self.ask(question, &arguments, limit).await?) }.boxed()
    }
}

impl Warehouse {
    fn event_rows(&self, wanted: &EventFilter) -> Result<RowCursor<EventRow<'static>>, WarehouseError> {
        let micros = |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
        // The member `event` is the first of every event's JSON.
        let any = |names: &[&str]| match names {
            [] => "false".to_owned(),
            names => names.iter().map(|_| "startsWith(payload, ?)").collect::<Vec<_>>().join(" OR "),
        };
        let recent = if wanted.since.is_some() { " AND at >= fromUnixTimestamp64Micro(?)" } else { "" };
        let sql = format!(
            "SELECT ?fields FROM ledger FINAL WHERE tenant = ? AND code = ? AND (({}) OR ({}){recent}) \
             ORDER BY tenant, journal, seq",
            any(&wanted.always),
            any(&wanted.names)
        );
        let mut query = self.client().query(&sql).bind(&self.config().tenant).bind(Kind::Event.code());
        for name in wanted.always.iter().chain(&wanted.names) {
            query = query.bind(format!("{{\"event\":\"{name}\""));
        }
        if let Some(at) = wanted.since {
            query = query.bind(micros(at.saturating_sub(SLACK)));
        }
        query.fetch().map_err(|source| self.failed("read the recorded events", source))
    }

    async fn next_event(&self, rows: &mut RowCursor<EventRow<'static>>) -> Result<Option<Event>, WarehouseError> {
        let failed = |source| self.failed("read the recorded events", source);
        while let Some(row) = rows.next().await.map_err(failed)? {
            let event = RecordedEvent::read(row.payload.as_bytes(), true)
                .map_err(|error| WarehouseError::Row { table: "ledger", why: error.to_string() })?;
            if let Some(event) = event.known() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}
