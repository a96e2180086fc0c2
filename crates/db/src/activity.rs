//! The activity log. Rows are durable when [`ActivityLog::append`] returns; rows that arrive while a commit is
//! under way share the next one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mws_models::{ActivityId, Timestamp, WorkspaceId};
use mws_runtime::tasks::Spawner;
use tokio::sync::{Semaphore, oneshot};

use crate::error::bounded;
use crate::{Db, Error, Result};

/// A row about to be appended. JSON columns are text that is valid JSON and storable (4.R6).
#[derive(Debug, Clone)]
pub struct NewActivity {
    pub workspace_id: WorkspaceId,
    pub activity_type: &'static str,
    pub source_id: Option<WorkspaceId>,
    pub source_label: Option<String>,
    pub target_id: Option<WorkspaceId>,
    pub method: Option<String>,
    pub summary: Option<String>,
    pub request_body: Option<String>,
    pub response_body: Option<String>,
    pub tool_trace: Option<String>,
    pub duration_ms: Option<i32>,
    pub status: &'static str,
    pub error_detail: Option<String>,
}

/// An appended row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub id: ActivityId,
    pub created_at: Timestamp,
}

/// Rows that may wait for a commit; further ones wait for room.
const QUEUE: usize = 1024;
/// Rows in one statement.
const BATCH: usize = 128;
/// Bytes of JSON in one statement, beyond its first row.
const BATCH_BYTES: usize = 8 << 20;
/// How long one append may take, the wait for room included.
const APPEND_DEADLINE: Duration = Duration::from_secs(10);

type Entry = (Arc<NewActivity>, oneshot::Sender<Result<Appended>>);

/// Handle to the log's one writer in this process. The writer lives while rows wait, and no longer.
#[derive(Clone)]
pub struct ActivityLog {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    spawner: Spawner,
    /// Room for waiting rows.
    room: Semaphore,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    rows: VecDeque<Entry>,
    /// A writer is at work and will take what is pushed.
    writing: bool,
}

impl ActivityLog {
    /// A log whose writer runs on `spawner`.
    #[must_use]
    pub fn new(db: Db, spawner: Spawner) -> Self {
        let inner = Inner { db, spawner, room: Semaphore::new(QUEUE), waiting: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Appends one row and returns when it is committed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not known to be committed within 10 s.
    pub async fn append(&self, row: Arc<NewActivity>) -> Result<Appended> {
        let append = async {
            let _room = self.inner.room.acquire().await.map_err(|_| Error::Unavailable(None))?;
            let (done, committed) = oneshot::channel();
            self.push((row, done));
            committed.await.map_err(|_| Error::Unavailable(None))?
        };
        tokio::time::timeout(APPEND_DEADLINE, append).await.unwrap_or(Err(Error::Unavailable(None)))
    }

    fn push(&self, entry: Entry) {
        let mut waiting = self.inner.lock();
        waiting.rows.push_back(entry);
        if !std::mem::replace(&mut waiting.writing, true) {
            let inner = self.inner.clone();
            self.inner.spawner.spawn("activity-writer", async move { inner.write().await }).detach();
        }
    }
}

fn weight(row: &NewActivity) -> usize {
    [&row.request_body, &row.response_body, &row.tool_trace].into_iter().flatten().map(String::len).sum()
}

/// Lets the next append start a writer when this one ends by a panic.
struct Resume<'a>(&'a Inner);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().writing = false;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, batch after batch, until nothing does.
    async fn write(&self) {
        // A panic must not leave the log without a writer for good.
        let _again = Resume(self);
        while let Some(batch) = self.next_batch() {
            self.write_batch(batch).await;
        }
    }

    fn next_batch(&self) -> Option<Vec<Entry>> {
        let mut waiting = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(entry) = waiting.rows.pop_front() else { break };
            bytes += weight(&entry.0);
            batch.push(entry);
        }
        waiting.writing = !batch.is_empty();
        (!batch.is_empty()).then_some(batch)
    }

    async fn write_batch(&self, batch: Vec<Entry>) {
        let (rows, waiting): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match self.db.insert_activity(&rows).await {
            Ok(appended) => {
                for (done, row) in waiting.into_iter().zip(appended) {
                    done.send(Ok(row)).ok();
                }
            }
            Err(error) if error.is_unavailable() => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    rows = rows.len(),
                    "activity not stored"
                );
                for done in waiting {
                    done.send(Err(Error::Unavailable(None))).ok();
                }
            }
            // One row that the database refuses must not take the others with it.
            Err(_) => {
                for (row, done) in rows.iter().zip(waiting) {
                    done.send(self.db.insert_one(row).await).ok();
                }
            }
        }
    }
}

impl Db {
    async fn insert_one(&self, row: &Arc<NewActivity>) -> Result<Appended> {
        let appended = self.insert_activity(std::slice::from_ref(row)).await?;
        appended.first().copied().ok_or(Error::Unavailable(None))
    }

    /// Inserts rows in one statement and answers in their order.
    async fn insert_activity(&self, rows: &[Arc<NewActivity>]) -> Result<Vec<Appended>> {
        let ids: Vec<_> = rows.iter().map(|_| ActivityId::random().uuid()).collect();
        macro_rules! column {
            (|$row:ident| $value:expr) => {
                &rows.iter().map(|$row| $value).collect::<Vec<_>>()
            };
        }
        let committed = bounded(
            sqlx::query!(
                r#"INSERT INTO activity_logs (id, workspace_id, activity_type, source_id, source_label, target_id,
                       method, summary, request_body, response_body, tool_trace, duration_ms, status, error_detail)
                   SELECT id, workspace_id, activity_type, source_id, source_label, target_id, method, summary,
                          request_body::jsonb, response_body::jsonb, tool_trace::jsonb, duration_ms, status,
                          error_detail
                   FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::uuid[], $7::text[],
                               $8::text[], $9::text[], $10::text[], $11::text[], $12::int[], $13::text[],
                               $14::text[]) WITH ORDINALITY
                        AS r (id, workspace_id, activity_type, source_id, source_label, target_id, method, summary,
                              request_body, response_body, tool_trace, duration_ms, status, error_detail, position)
                   ORDER BY position
                   RETURNING created_at AS "created_at!: Timestamp""#,
                &ids,
                column!(|row| row.workspace_id.uuid()),
                column!(|row| row.activity_type) as &[&str],
                column!(|row| row.source_id.map(WorkspaceId::uuid)) as &[Option<sqlx::types::Uuid>],
                column!(|row| row.source_label.as_deref()) as &[Option<&str>],
                column!(|row| row.target_id.map(WorkspaceId::uuid)) as &[Option<sqlx::types::Uuid>],
                column!(|row| row.method.as_deref()) as &[Option<&str>],
                column!(|row| row.summary.as_deref()) as &[Option<&str>],
                column!(|row| row.request_body.as_deref()) as &[Option<&str>],
                column!(|row| row.response_body.as_deref()) as &[Option<&str>],
                column!(|row| row.tool_trace.as_deref()) as &[Option<&str>],
                column!(|row| row.duration_ms) as &[Option<i32>],
                column!(|row| row.status) as &[&str],
                column!(|row| row.error_detail.as_deref()) as &[Option<&str>],
            )
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(ids
            .into_iter()
            .zip(committed)
            .map(|(id, row)| Appended { id: ActivityId::from(id), created_at: row.created_at })
            .collect())
    }
}
