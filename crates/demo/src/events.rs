//! The event log, followed by asking for it again and again, as a script would.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::DemoError;
use crate::api::{Api, EventRow};
use crate::out::{Out, plain};
use crate::process::Server;
use crate::team::Team;

const EVERY: Duration = Duration::from_secs(1);
const PAYLOAD_CHARS: usize = 100;

/// Which events were shown. Bounded by one page of the log: what has left the page does not come back.
#[derive(Default)]
struct Seen(HashSet<String>);

impl Seen {
    /// What is new in a page, oldest first.
    fn news<'a>(&mut self, page: &'a [EventRow]) -> Vec<&'a EventRow> {
        let news = page.iter().rev().filter(|event| !self.0.contains(&event.id)).collect();
        self.0 = page.iter().map(|event| event.id.clone()).collect();
        news
    }
}

/// Shows new events until the server is gone.
pub(crate) async fn follow(api: &Api, team: &Team, server: &mut Server, out: Out) -> Result<(), DemoError> {
    let mut seen = Seen::default();
    seen.news(&page(api).await?);
    loop {
        sleep(EVERY).await;
        server.check()?;
        for event in seen.news(&page(api).await?) {
            out.line(format_args!("  {}", line(event, team)));
        }
    }
}

async fn page(api: &Api) -> Result<Vec<EventRow>, DemoError> {
    api.events().await.map_err(DemoError::api("reading the events"))
}

fn line(event: &EventRow, team: &Team) -> String {
    let whose = match event.workspace_id {
        None => String::new(),
        Some(id) => team.name(id).map_or_else(|| id.to_string(), str::to_owned),
    };
    let payload: String = plain(&event.payload.to_string()).chars().take(PAYLOAD_CHARS).collect();
    // RFC 3339 in UTC: the time of day is what changes while one looks on.
    let time = event.created_at.get(11..19).unwrap_or(&event.created_at);
    format!("{time}  {:<24} {whose:<9} {payload}", plain(&event.event_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: &[&str]) -> Vec<EventRow> {
        ids.iter()
            .map(|id| EventRow {
                id: (*id).to_owned(),
                event_type: "E".to_owned(),
                workspace_id: None,
                payload: serde_json::Value::Null,
                created_at: "2026-04-17T12:34:56.789Z".to_owned(),
            })
            .collect()
    }

    #[test]
    fn each_event_is_news_once_and_oldest_first() {
        let mut seen = Seen::default();
        let mut news = |ids: &[&str]| -> Vec<String> {
            seen.news(&page(ids)).into_iter().map(|event| event.id.clone()).collect()
        };
        assert_eq!(news(&["2", "1"]), ["1", "2"]);
        assert_eq!(news(&["4", "3", "2", "1"]), ["3", "4"]);
        assert!(news(&["4", "3"]).is_empty());
    }
}
