//! One message to the lead, who asks a teammate through the server before it answers.

use std::time::Duration;

use mws_models::WorkspaceId;
use tokio::time::{Instant, sleep};

use crate::DemoError;
use crate::api::{Api, ApiError};
use crate::out::{Out, plain};
use crate::team::{LEAD, Team, WRITER};

const QUESTION: &str = "what is our plan?";
const REACHABLE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);

pub(crate) async fn hold(api: &Api, team: &Team, out: Out) -> Result<(), DemoError> {
    let text = format!("ask {WRITER}: {QUESTION}");
    out.line(format_args!("  you    → {LEAD:<7} {text}"));
    let answer = send(api, team.lead, &text).await.map_err(DemoError::api(format!("messaging {LEAD}")))?;
    // The sample agent quotes the teammate whom it asked, so its answer is the proof of the whole way.
    let quoted = answer
        .strip_prefix(&format!("{WRITER} says: "))
        .filter(|quoted| quoted.contains(QUESTION))
        .ok_or_else(|| DemoError::Conversation(plain(&answer)))?;
    out.line(format_args!("  {LEAD}   → {WRITER:<7} {QUESTION}"));
    out.line(format_args!("  {WRITER} → {LEAD:<7} {}", plain(quoted)));
    out.line(format_args!("  {LEAD}   → you     {}", plain(&answer)));
    Ok(())
}

/// An agent is online once it has registered, and has its address once its start has ended (2.R30): in between
/// nothing reaches it, and the sender tries again.
async fn send(api: &Api, to: WorkspaceId, text: &str) -> Result<String, ApiError> {
    let start = Instant::now();
    loop {
        match api.message(to, text).await {
            Err(ApiError::Status { status: 502 | 503, .. }) if start.elapsed() < REACHABLE => {
                sleep(PAUSE).await
            }
            outcome => return outcome,
        }
    }
}
