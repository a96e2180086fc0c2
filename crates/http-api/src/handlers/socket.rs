//! `GET /ws`: the live feed (contract 3.13).

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use http::request::Parts;
use mws_events::{Closed, Published, Refused, Subscription};
use mws_wsauth::SocketAgent;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use crate::{Api, ApiError};

/// How often the server pings (3.R117).
const PING_EVERY: Duration = Duration::from_secs(30);
/// Silence after which a client is gone.
const SILENCE: Duration = Duration::from_secs(75);
/// The deadline of one write.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// The largest frame a client may send.
const MAX_INBOUND: usize = 4096;
/// Kept small: most clients are idle most of the time.
const READ_BUFFER: usize = 4096;
/// What a write may buffer: one queue of the hub's.
const WRITE_BUFFER: usize = 16 << 20;

/// Upgrades a client that was let in and feeds it until either side ends.
pub(crate) async fn connect(
    api: Api,
    mut parts: Parts,
    agent: Option<SocketAgent>,
) -> Result<Response, ApiError> {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| ApiError::bad_request("a WebSocket upgrade request is required"))?;
    // Before the upgrade is answered, so that no event falls in between.
    let subscription = api.parts().hub.try_subscribe().map_err(|refused| match refused {
        Refused::Full => ApiError::unavailable("too many clients").retry_after(5),
        Refused::Shutdown => ApiError::unavailable("the server is stopping").retry_after(5),
    })?;
    let spawner = api.parts().spawner.clone();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(MAX_INBOUND)
        .max_frame_size(MAX_INBOUND)
        .on_upgrade(move |socket| async move {
            let session = Session { api, agent, socket, last_heard: Instant::now() };
            spawner.spawn("ws-client", session.run(subscription)).detach();
        }))
}

struct Session {
    api: Api,
    agent: Option<SocketAgent>,
    socket: WebSocket,
    last_heard: Instant,
}

/// The close code and reason of a session's end; `None` when there is nobody left to tell.
type End = Option<(u16, &'static str)>;

impl Session {
    async fn run(mut self, mut subscription: Subscription) {
        if let Some((code, reason)) = self.feed(&mut subscription).await {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            timeout(WRITE_DEADLINE, self.socket.send(Message::Close(Some(frame)))).await.ok();
        }
    }

    async fn feed(&mut self, subscription: &mut Subscription) -> End {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.tick().await;
        loop {
            tokio::select! {
                event = subscription.next() => match event {
                    Ok(event) => {
                        if self.may_see(&event).await && !self.send(text(&event)).await {
                            return None;
                        }
                    }
                    Err(Closed::Overflow) => return Some((close_code::AGAIN, "too slow")),
                    Err(Closed::Shutdown) => return Some((close_code::AWAY, "server stopping")),
                },
                inbound = self.socket.recv() => match inbound {
                    // Pings are answered by the library; data frames are ignored.
                    Some(Ok(Message::Close(_))) | None => return None,
                    Some(Ok(_)) => self.last_heard = Instant::now(),
                    Some(Err(error)) => return verdict(error),
                },
                _ = pings.tick() => {
                    if !self.may_stay().await {
                        return Some((close_code::POLICY, "no longer allowed"));
                    }
                    if !self.send(Message::Ping(bytes::Bytes::new())).await {
                        return None;
                    }
                }
                () = sleep_until(self.last_heard + SILENCE) => return None,
            }
        }
    }

    async fn send(&mut self, message: Message) -> bool {
        matches!(timeout(WRITE_DEADLINE, self.socket.send(message)).await, Ok(Ok(())))
    }

    /// A canvas sees everything; an agent what concerns workspaces it may talk to (3.R114).
    async fn may_see(&mut self, event: &Published) -> bool {
        let Some(agent) = &self.agent else { return true };
        let parents = &self.api.parts().parents;
        parents.can_communicate(agent.workspace(), event.workspace_id()).await == Some(true)
    }

    /// Whether an agent is still who it was (3.R119). A store that does not answer drops nobody.
    async fn may_stay(&mut self) -> bool {
        match &self.agent {
            None => true,
            Some(agent) => self.api.auth().socket_agent_may_stay(agent).await.unwrap_or(true),
        }
    }
}

/// What a client is told about what it sent; a broken connection has nobody left to tell.
fn verdict(error: axum::Error) -> End {
    match error.into_inner().downcast_ref() {
        Some(tungstenite::Error::Capacity(_)) => Some((close_code::SIZE, "message too large")),
        Some(tungstenite::Error::Protocol(_)) => Some((close_code::PROTOCOL, "protocol error")),
        Some(tungstenite::Error::Utf8(_)) => Some((close_code::INVALID, "text must be UTF-8")),
        _ => None,
    }
}

fn text(event: &Published) -> Message {
    // What the hub serialised is JSON, so it is UTF-8.
    Utf8Bytes::try_from(event.text().clone())
        .map_or_else(|_| Message::Text(Utf8Bytes::default()), Message::Text)
}
