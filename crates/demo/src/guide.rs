//! Where the server is, and what to try next.

use serde_json::{Value, json};

use crate::out::Out;
use crate::team::{LEAD, Team, WRITER};

pub(crate) fn print(out: Out, port: u16, token: &str, team: &Team) {
    let base = format!("http://localhost:{port}");
    out.heading("The server");
    out.line(format_args!("  API      {base}"));
    out.line(format_args!("  health   {base}/health"));
    out.line(format_args!("  events   {base}/events   ws://localhost:{port}/ws"));
    out.heading("Next steps, in another terminal");
    out.line(format_args!("  export ADMIN_TOKEN={token}"));
    for (what, command) in steps(&base, team) {
        out.line(format_args!("\n  # {what}\n  {command}"));
    }
}

fn steps(base: &str, team: &Team) -> [(String, String); 5] {
    let curl = "curl -sS -H \"Authorization: Bearer $ADMIN_TOKEN\"";
    let lead = team.lead;
    let post = |path: &str, body: &Value| format!("{curl} -d '{body}' {base}{path}");
    // The server completes the envelope and gives the message an id (4.R25 to 4.R27).
    let message = json!({ "method": "message/send", "params": { "message": {
        "role": "user",
        "parts": [{ "kind": "text", "text": format!("ask {WRITER}: are we done?") }],
    } } });
    let create = json!({ "name": "Scout", "template": "sample", "tier": 2, "parent_id": lead });
    [
        ("list the team".to_owned(), format!("{curl} {base}/workspaces")),
        (format!("let {LEAD} ask {WRITER}"), post(&format!("/workspaces/{lead}/a2a"), &message)),
        ("add a member (tier 2: a capped, unprivileged container)".to_owned(), post("/workspaces", &create)),
        ("read the events".to_owned(), format!("{curl} '{base}/events?limit=20'")),
        (
            format!("delete {LEAD} and everyone under it"),
            format!("{curl} -X DELETE '{base}/workspaces/{lead}?confirm=true'"),
        ),
    ]
}
