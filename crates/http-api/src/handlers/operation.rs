//! Health, build, background tasks, jobs.

use axum::response::Response;
use mws_models::{Timestamp, WorkspaceId};
use serde::Serialize;
use serde_json::{Map, json};

use crate::route::Request;
use crate::{Api, ApiError, reply};

/// `GET /health`: the process is alive, whatever the database does (1.R155).
pub(crate) async fn health(_: Api, _: Request) -> Result<Response, ApiError> {
    Ok(reply::ok(&json!({"status": "ok"})))
}

/// `GET /buildinfo`.
pub(crate) async fn buildinfo(api: Api, _: Request) -> Result<Response, ApiError> {
    Ok(reply::ok(&json!({"git_sha": api.parts().git_sha})))
}

#[derive(Serialize)]
struct Subsystem {
    last_tick_at: Timestamp,
    seconds_ago: i64,
    interval_seconds: Option<i64>,
    stale: bool,
    restarts: i64,
    last_error: Option<String>,
    holder: Option<String>,
}

/// `GET /admin/liveness`: every task of the deployment (3.R66).
pub(crate) async fn liveness(api: Api, _: Request) -> Result<Response, ApiError> {
    let mut subsystems = Map::new();
    for task in api.db().list_tasks().await? {
        let (Some(last_tick_at), Some(seconds_ago)) = (task.last_tick_at, task.seconds_ago) else { continue };
        let subsystem = Subsystem {
            last_tick_at,
            seconds_ago,
            interval_seconds: task.interval_ms.map(|ms| (ms + 999) / 1000),
            stale: task.interval_ms.is_some_and(|ms| seconds_ago * 1000 > 2 * ms.max(10_000)),
            restarts: task.restarts,
            last_error: task.last_error,
            holder: task.holder,
        };
        subsystems.insert(task.name, serde_json::to_value(subsystem).map_err(|_| ApiError::failed())?);
    }
    Ok(reply::ok(&json!({"subsystems": subsystems})))
}

#[derive(Serialize)]
struct Job {
    workspace_id: WorkspaceId,
    kind: String,
    state: String,
    reason: String,
    attempts: i32,
    not_before: Timestamp,
    holder: Option<String>,
    lease_until: Option<Timestamp>,
    requested_at: Timestamp,
    started_at: Option<Timestamp>,
    last_error: Option<String>,
}

/// `GET /admin/jobs`: what runs, waits and lately failed (3.R127).
pub(crate) async fn jobs(api: Api, _: Request) -> Result<Response, ApiError> {
    let jobs: Vec<_> = api
        .db()
        .list_jobs()
        .await?
        .into_iter()
        .map(|job| Job {
            workspace_id: job.workspace_id,
            kind: job.kind,
            state: job.state,
            reason: job.reason,
            attempts: job.attempts,
            not_before: job.not_before,
            holder: job.holder,
            lease_until: job.lease_until,
            requested_at: job.requested_at,
            started_at: job.started_at,
            last_error: job.last_error,
        })
        .collect();
    Ok(reply::ok(&json!({"jobs": jobs})))
}
