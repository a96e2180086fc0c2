use std::sync::Arc;

use mws_models::{Event, EventId, Timestamp};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};

use crate::Result;
use crate::error::bounded;

/// An event whose row is committed.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The id of its row.
    pub id: EventId,
    /// When its row was written, by the database's clock.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// Where committed events go. Called after the commit, in the order recorded; must not block.
pub trait EventSink: Send + Sync {
    /// Takes one committed event.
    fn publish(&self, recorded: Recorded);
}

/// Drops every event: for processes and tests without listeners.
impl EventSink for () {
    fn publish(&self, _: Recorded) {}
}

/// A transaction that carries its events. Dropped without [`Tx::commit`], it rolls back and tells nobody.
pub struct Tx {
    inner: Transaction<'static, Postgres>,
    sink: Arc<dyn EventSink>,
    events: Vec<Event>,
}

impl Tx {
    pub(crate) fn new(inner: Transaction<'static, Postgres>, sink: Arc<dyn EventSink>) -> Self {
        Self { inner, sink, events: Vec::new() }
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// Notes an event: its row is written with this transaction and pushed after it.
    pub fn record(&mut self, event: Event) {
        debug_assert!(event.kind.is_recorded(), "{} is broadcast only", event.kind.name());
        self.events.push(event);
    }

    /// Lets this transaction wait up to 10 s for a row lock instead of the registry's 2 s.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] when the connection is lost.
    pub async fn patient(&mut self) -> Result<()> {
        bounded(sqlx::query!("SELECT set_config('lock_timeout', '9s', true)").fetch_one(self.connection()))
            .await
            .map(|_| ())
    }

    /// Writes the event rows, commits, then hands the events to the sink.
    ///
    /// # Errors
    /// Nothing of the transaction holds and no event is told. After [`crate::Error::Unavailable`] the commit
    /// may still have happened: the connection was lost while waiting for the answer.
    pub async fn commit(mut self) -> Result<()> {
        let recorded = self.write_events().await?;
        bounded(self.inner.commit()).await?;
        for event in recorded {
            self.sink.publish(event);
        }
        Ok(())
    }

    async fn write_events(&mut self) -> Result<Vec<Recorded>> {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = events.iter().map(|_| EventId::random().uuid()).collect();
        let types: Vec<_> = events.iter().map(|event| event.kind.name().to_owned()).collect();
        let workspaces: Vec<_> = events.iter().map(|event| event.workspace_id.uuid()).collect();
        let payloads: Vec<_> = events.iter().map(|event| Value::Object(event.payload.clone())).collect();
        let rows = bounded(
            sqlx::query!(
                r#"INSERT INTO structure_events (id, event_type, workspace_id, payload)
                   SELECT id, event_type, workspace_id, payload
                   FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::jsonb[])
                        WITH ORDINALITY AS e (id, event_type, workspace_id, payload, position)
                   ORDER BY position
                   RETURNING id AS "id: EventId", created_at AS "at: Timestamp""#,
                &ids,
                &types,
                &workspaces,
                &payloads,
            )
            .fetch_all(self.connection()),
        )
        .await?;
        Ok(events
            .into_iter()
            .zip(ids)
            .filter_map(|(event, id)| {
                let row = rows.iter().find(|row| row.id.uuid() == id)?;
                Some(Recorded { id: row.id, at: row.at, event })
            })
            .collect())
    }
}
