//! The platform's inbound secret: what the server presents to an agent (5 §2).

use mws_db::jobs::ClaimedJob;
use mws_models::WorkspaceId;
use mws_secrets::Binding;
use mws_wsauth::NewToken;
use secrecy::{ExposeSecret, SecretString};

use crate::Lifecycle;

/// An inbound secret and whether it had to be minted just now.
pub struct InboundSecret {
    pub secret: SecretString,
    /// The agent does not know it yet.
    pub healed: bool,
}

impl Lifecycle {
    /// Reads the secret, or mints it in place where there is none; the loser of a race reads the winner's
    /// (5.R29, 5.R32). `None` when it cannot be had; the log says why.
    pub async fn read_or_heal_inbound_secret(&self, id: WorkspaceId) -> Option<InboundSecret> {
        let log = |error: &mws_db::Error| {
            tracing::warn!(workspace_id = %id, error = error as &dyn std::error::Error, "inbound secret unavailable");
        };
        let stored = self.db().inbound_secret(id).await.inspect_err(log).ok()??;
        if let Some(stored) = stored {
            return self
                .open_inbound(id, &stored)
                .await
                .map(|secret| InboundSecret { secret, healed: false });
        }
        let (minted, sealed) = self.mint_inbound(id)?;
        if self.db().heal_inbound_secret(id, &sealed).await.inspect_err(log).ok()? {
            return Some(InboundSecret { secret: minted, healed: true });
        }
        let winners = self.db().inbound_secret(id).await.inspect_err(log).ok()???;
        self.open_inbound(id, &winners).await.map(|secret| InboundSecret { secret, healed: false })
    }

    /// Replaces the secret before a start, while the run owns its row. Without one the start goes on: the agent
    /// gets it with its next registration or heartbeat.
    pub(crate) async fn rotate_inbound_secret(
        &self,
        job: &ClaimedJob,
        generation: i64,
    ) -> Result<Option<SecretString>, mws_db::Error> {
        let id = job.workspace_id;
        let Some((minted, sealed)) = self.mint_inbound(id) else { return Ok(None) };
        let mut tx = self.db().begin().await?;
        let stored = tx.holds_run(job, generation).await? && tx.put_inbound_secret(id, &sealed).await?;
        tx.commit().await?;
        Ok(stored.then_some(minted))
    }

    fn mint_inbound(&self, id: WorkspaceId) -> Option<(SecretString, String)> {
        let minted = SecretString::from(NewToken::mint().ok()?.token.expose().to_owned());
        let sealed = self
            .parts()
            .keys
            .seal_text(&Binding::inbound(&id.to_string()), minted.expose_secret())
            .inspect_err(|error| {
                tracing::error!(workspace_id = %id, error = error as &dyn std::error::Error, "inbound secret not sealed");
            })
            .ok()?;
        Some((minted, sealed))
    }

    async fn open_inbound(&self, id: WorkspaceId, stored: &str) -> Option<SecretString> {
        let owner = id.to_string();
        let opened = self
            .parts()
            .keys
            .open_text(&Binding::inbound(&owner), stored)
            .inspect_err(|error| {
                tracing::error!(workspace_id = %id, error = error as &dyn std::error::Error, "inbound secret does not open");
            })
            .ok()?;
        if opened.rewrite
            && let Ok(sealed) =
                self.parts().keys.seal_text(&Binding::inbound(&owner), opened.secret.expose_secret())
            && let Err(error) = self.db().rewrap_inbound_secret(id, stored, &sealed).await
        {
            tracing::warn!(workspace_id = %id, error = &error as &dyn std::error::Error, "inbound secret not rewrapped");
        }
        Some(opened.secret)
    }
}
