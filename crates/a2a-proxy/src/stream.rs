//! An answer that comes as a stream of events (4.R57).

use std::time::Duration;

use bytes::Bytes;
use mws_egress::AgentResponse;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use crate::Proxy;
use crate::call::StreamReply;
use crate::dispatch::{Cause, Timer};
use crate::proxy::Prepared;
use crate::reply::Reading;

/// Silence after which a stream gets a comment, to keep what is in between from closing it.
const COMMENT_AFTER: Duration = Duration::from_secs(15);
/// The most of a stream's last event that is logged.
const MAX_EVENT: usize = 1 << 20;
/// Chunks that may wait for a slow reader.
const QUEUE: usize = 64;
/// How long the agent is kept waiting for a reader whose queue is full, before the reader is given up.
const READER_PATIENCE: Duration = Duration::from_secs(30);

impl Proxy {
    /// Passes a stream on as it comes; whoever reads it may leave, the agent is heard to its end.
    pub(crate) fn stream(
        &self,
        prepared: Prepared,
        response: AgentResponse,
        content_type: String,
        timer: Timer,
        slot: OwnedSemaphorePermit,
    ) -> StreamReply {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let status = response.status.as_u16();
        let (proxy, reader) = (self.clone(), Reader::new(sender));
        let relay = async move {
            let _slot = slot;
            proxy.relay(prepared, response, timer, reader).await;
        };
        self.parts().spawner.spawn("a2a-stream", relay).detach();
        StreamReply { status, content_type, chunks }
    }

    async fn relay(
        &self,
        prepared: Prepared,
        mut response: AgentResponse,
        mut timer: Timer,
        mut reader: Reader,
    ) {
        let mut last = LastEvent::default();
        let broken = loop {
            let next = tokio::select! {
                next = timeout(COMMENT_AFTER, response.body.next_chunk()) => next,
                cause = timer.expired() => break Some(cause),
            };
            match next {
                Err(_) => reader.comment(),
                Ok(None) => break None,
                Ok(Some(Err(error))) => break Some(Cause::from(&error)),
                Ok(Some(Ok(chunk))) => {
                    timer.saw_chunk();
                    last.push(&chunk);
                    if !reader.pass_on(chunk).await {
                        reader.fail(&prepared.request.id);
                    }
                }
            }
        };
        let took = timer.elapsed();
        if let Some(cause) = broken {
            reader.fail(&prepared.request.id);
            self.log_failure(&prepared, Some(took), cause.reason(), true).await;
            self.note_delivery(&prepared);
            return;
        }
        let body = last.into_body();
        let error = Reading::of(&body).rpc_error;
        self.log_answer(&prepared, &body, error, None, took).await;
        self.delivered(&prepared, &body, took);
        // Only now does the reader see the end: the row stands before it.
        drop(reader);
    }
}

/// Whoever reads the stream, until he leaves, or is too slow.
struct Reader {
    open: Option<Open>,
    /// What was passed on ends so.
    tail: Tail,
}

struct Open {
    sender: mpsc::Sender<Bytes>,
    /// Kept free for the last words of a stream that breaks.
    last_place: mpsc::OwnedPermit<Bytes>,
}

/// Where in the framing of events a text ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    /// Between two events.
    Event,
    /// Between two lines of an event.
    Line,
    /// Within a line, or after a carriage return that may be half of a line's end.
    Text,
}

impl Tail {
    fn after(self, chunk: &[u8]) -> Self {
        match chunk {
            [] => self,
            [.., b'\n', b'\n'] | [.., b'\n', b'\r', b'\n'] => Self::Event,
            [b'\n'] | [b'\r', b'\n'] if self != Self::Text => Self::Event,
            [.., b'\n'] => Self::Line,
            _ => Self::Text,
        }
    }
}

impl Reader {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        let last_place = sender.clone().try_reserve_owned().ok();
        Self { open: last_place.map(|last_place| Open { sender, last_place }), tail: Tail::Event }
    }

    /// Passes a chunk on; `false` when the reader cannot be given it. One that has left wants nothing.
    async fn pass_on(&mut self, chunk: Bytes) -> bool {
        let Some(open) = &self.open else { return true };
        self.tail = self.tail.after(&chunk);
        let full = match open.sender.try_send(chunk) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.open = None;
                return true;
            }
            Err(mpsc::error::TrySendError::Full(chunk)) => chunk,
        };
        match timeout(READER_PATIENCE, open.sender.send(full)).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => {
                self.open = None;
                true
            }
            Err(_) => false,
        }
    }

    /// A comment, where one does not break what the agent says.
    fn comment(&self) {
        if let Some(open) = &self.open
            && self.tail != Tail::Text
        {
            // A full queue is no silence.
            open.sender.try_send(Bytes::from_static(b": keep-alive\n")).ok();
        }
    }

    /// Ends the stream with an error under the request's id.
    fn fail(&mut self, id: &str) {
        let Some(open) = self.open.take() else { return };
        let gap = match self.tail {
            Tail::Event => "",
            Tail::Line => "\n",
            Tail::Text => "\n\n",
        };
        let error = json!({"code": -32603, "message": "agent response interrupted"});
        let event =
            format!("{gap}event: error\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}\n\n");
        open.last_place.send(Bytes::from(event));
    }
}

/// Keeps the data of the last complete event of a stream, within a bound.
#[derive(Default)]
struct LastEvent {
    complete: Vec<u8>,
    current: Vec<u8>,
    /// The current event is longer than what is kept.
    cut: bool,
    /// The current line has no byte yet.
    line_begun: bool,
}

impl LastEvent {
    fn push(&mut self, chunk: &[u8]) {
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            let blank = !self.line_begun && matches!(line, b"\n" | b"\r\n");
            self.line_begun = !line.ends_with(b"\n") && (self.line_begun || line != b"\r");
            if blank {
                self.finish();
            } else if self.current.len() + line.len() <= MAX_EVENT {
                self.current.extend_from_slice(line);
            } else {
                self.cut = true;
            }
        }
    }

    fn finish(&mut self) {
        let data = event_data(&self.current);
        if !data.is_empty() && !self.cut {
            self.complete = data;
        }
        self.current.clear();
        self.cut = false;
    }

    fn into_body(mut self) -> Vec<u8> {
        self.finish();
        self.complete
    }
}

fn event_data(event: &[u8]) -> Vec<u8> {
    let lines = event.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    lines.map(|line| line.trim_ascii()).collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_of_a_stream_is_kept() {
        // 4.R57
        let mut last = LastEvent::default();
        for chunk in ["data: {\"a\"", ":1}\n\n: comment\n\nevent: x\ndata: {\"b\":2}\n", "\n", "data: {\"c\""]
        {
            last.push(chunk.as_bytes());
        }
        assert_eq!(last.complete, b"{\"b\":2}");
        last.push(b":3}");
        assert_eq!(last.into_body(), b"{\"c\":3}");
    }

    #[test]
    fn an_event_beyond_the_bound_is_not_kept_in_part() {
        // 4.R57
        let mut last = LastEvent::default();
        last.push(b"data: 1\r\n\r\n");
        last.push(format!("data: {}\n", "x".repeat(MAX_EVENT)).as_bytes());
        last.push(b"data: 2\n\n");
        assert_eq!(last.into_body(), b"1");
    }

    #[test]
    fn where_a_text_ends() {
        let after = |chunks: &[&str]| chunks.iter().fold(Tail::Event, |tail, c| tail.after(c.as_bytes()));
        assert_eq!(after(&[]), Tail::Event);
        assert_eq!(after(&["data: 1\n\n"]), Tail::Event);
        assert_eq!(after(&["data: 1\r\n\r\n"]), Tail::Event);
        assert_eq!(after(&["data: 1\n", "\n"]), Tail::Event);
        assert_eq!(after(&["data: 1\n"]), Tail::Line);
        assert_eq!(after(&["data: 1", "\n"]), Tail::Line);
        assert_eq!(after(&["data: 1\n\r"]), Tail::Text);
        assert_eq!(after(&["data: 1\n\ndata"]), Tail::Text);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_does_not_read_is_told_that_he_missed_something() {
        // 4.R57: a stream never has a hole that nobody can see.
        let (sender, mut chunks) = mpsc::channel(QUEUE);
        let mut reader = Reader::new(sender);
        let mut passed = 0;
        while reader.pass_on(Bytes::from_static(b"data: 1\n\n")).await {
            passed += 1;
        }
        assert_eq!(passed, QUEUE - 1);
        reader.fail("7");
        assert!(reader.pass_on(Bytes::from_static(b"data: 2\n\n")).await);
        let mut read = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            read.push(chunk);
        }
        assert_eq!(read.len(), QUEUE);
        let expected = "event: error\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32603,\"message\":\"agent response interrupted\"}}\n\n";
        assert_eq!(read[QUEUE - 1], expected);
    }

    #[tokio::test]
    async fn comments_and_errors_stand_between_the_agents_lines() {
        // 4.R57
        for (said, comment, gap) in
            [("data: 1\n\n", true, ""), ("data: 1\n", true, "\n"), ("data: 1", false, "\n\n")]
        {
            let (sender, mut chunks) = mpsc::channel(QUEUE);
            let mut reader = Reader::new(sender);
            assert!(reader.pass_on(Bytes::from(said)).await);
            reader.comment();
            reader.fail("null");
            assert_eq!(chunks.recv().await.unwrap(), said);
            if comment {
                assert_eq!(chunks.recv().await.unwrap(), ": keep-alive\n");
            }
            let error = chunks.recv().await.unwrap();
            assert!(error.starts_with(format!("{gap}event: error\n").as_bytes()), "{error:?}");
            assert_eq!(chunks.recv().await, None);
        }
    }

    #[tokio::test]
    async fn a_reader_who_left_is_not_waited_for() {
        // 4.R57
        let (sender, chunks) = mpsc::channel(QUEUE);
        let mut reader = Reader::new(sender);
        drop(chunks);
        for _ in 0..QUEUE * 2 {
            assert!(reader.pass_on(Bytes::from_static(b"data: 1\n\n")).await);
        }
        assert!(reader.open.is_none());
    }
}
