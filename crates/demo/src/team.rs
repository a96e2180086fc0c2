//! The team: one lead and two members, each an agent in a container.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use mws_models::{WorkspaceId, WorkspaceStatus};
use tokio::time::{Instant, sleep};

use crate::DemoError;
use crate::api::{Api, NewWorkspace, Workspace};
use crate::out::{Out, plain};

pub(crate) const LEAD: &str = "Lead";
pub(crate) const WRITER: &str = "Writer";
const REVIEWER: &str = "Reviewer";

const ONLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

pub(crate) struct Team {
    pub(crate) lead: WorkspaceId,
    names: HashMap<WorkspaceId, &'static str>,
}

impl Team {
    pub(crate) async fn create(api: &Api) -> Result<Self, DemoError> {
        let create = async |name, role, parent| {
            let id = api.create(&NewWorkspace { name, role, parent }).await;
            id.map_err(DemoError::api(format!("creating {name}")))
        };
        let lead = create(LEAD, "Answers for the team", None).await?;
        let writer = create(WRITER, "Writes", Some(lead)).await?;
        let reviewer = create(REVIEWER, "Reads what was written", Some(lead)).await?;
        Ok(Self { lead, names: HashMap::from([(lead, LEAD), (writer, WRITER), (reviewer, REVIEWER)]) })
    }

    pub(crate) fn name(&self, id: WorkspaceId) -> Option<&'static str> {
        self.names.get(&id).copied()
    }

    /// Shows every change of status until all are online.
    pub(crate) async fn wait_online(&self, api: &Api, out: Out, log: &Path) -> Result<(), DemoError> {
        let start = Instant::now();
        let mut shown: HashMap<WorkspaceId, String> = HashMap::new();
        loop {
            let all = api.workspaces().await.map_err(DemoError::api("watching the team"))?;
            let team: Vec<&Workspace> = all.iter().filter(|one| self.names.contains_key(&one.id)).collect();
            for one in &team {
                if shown.get(&one.id) != Some(&one.status) {
                    let seconds = start.elapsed().as_secs_f64();
                    out.line(format_args!("  {:<9} {:<12} {seconds:>5.1} s", one.name, one.status));
                    shown.insert(one.id, one.status.clone());
                }
            }
            if let Some(failed) = team.iter().find(|one| has(one, WorkspaceStatus::Failed)) {
                let reason = plain(failed.last_sample_error.as_deref().unwrap_or_default());
                return Err(DemoError::AgentFailed { name: failed.name.clone(), reason });
            }
            let online = |one: &&&Workspace| has(one, WorkspaceStatus::Online);
            if team.iter().filter(online).count() == self.names.len() {
                return Ok(());
            }
            if start.elapsed() >= ONLINE {
                let late: Vec<&str> = team.iter().filter(|one| !online(one)).map(|one| &*one.name).collect();
                return Err(DemoError::AgentsLate {
                    seconds: ONLINE.as_secs(),
                    names: late.join(", "),
                    log: log.to_owned(),
                });
            }
            sleep(POLL).await;
        }
    }
}

fn has(workspace: &Workspace, status: WorkspaceStatus) -> bool {
    workspace.status == status.as_str()
}
