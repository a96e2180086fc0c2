//! Request bodies that are answered before they were read.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use mws_runtime::tasks::Spawner;
use tokio::time::timeout;

/// How much of an unread body is taken in and dropped.
const MAX_BYTES: usize = 32 << 20;
/// For how long.
const DEADLINE: Duration = Duration::from_secs(5);

/// A request body whose unread rest is read and dropped behind the answer. A connection that is closed on unread
/// data is reset, and the client, still writing, would lose the answer that tells it why.
pub(crate) struct LingeringBody {
    body: Body,
    ended: bool,
    spawner: Spawner,
}

impl LingeringBody {
    pub(crate) fn new(body: Body, spawner: Spawner) -> Self {
        Self { body, ended: false, spawner }
    }
}

impl HttpBody for LingeringBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.ended = matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LingeringBody {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            let rest = std::mem::take(&mut self.body);
            self.spawner.spawn("unread-body", async { timeout(DEADLINE, discard(rest)).await.ok() }).detach();
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return;
        }
        left -= length;
    }
}
