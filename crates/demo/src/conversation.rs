//! One message to the lead, who asks a teammate through the server before it answers.

use crate::DemoError;
use crate::api::Api;
use crate::out::{Out, plain};
use crate::team::{LEAD, Team, WRITER};

const QUESTION: &str = "what is our plan?";

pub(crate) async fn hold(api: &Api, team: &Team, out: Out) -> Result<(), DemoError> {
    let text = format!("ask {WRITER}: {QUESTION}");
    out.line(format_args!("  you    → {LEAD:<7} {text}"));
    let answer = api.message(team.lead, &text).await.map_err(DemoError::api(format!("messaging {LEAD}")))?;
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
