//! Registration (contract 3.1).

use mws_db::tokens::IssuedBy;
use mws_db::transitions::Registration;
use mws_models::WorkspaceStatus;
use mws_models::api::{Register, Registered};
use mws_wsauth::{NewToken, RegistryPass};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::Registry;
use crate::address::{Address, AddressError, resolve};

/// Why a registration was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No such workspace, and it may not make itself one.
    #[error("workspace not found")]
    NotFound,
    /// The workspace was removed, or another registration was first: the gate's 401.
    #[error("the workspace's own token is required")]
    Refused,
    /// A pushed-to agent needs an address.
    #[error("url is required")]
    UrlRequired,
    /// The address is not one that this server would dial.
    #[error("{0}")]
    UnsafeUrl(mws_egress::Refusal),
    /// The database refused or was away.
    #[error("registration failed")]
    Store(#[from] mws_db::Error),
    /// The system gave no random bytes.
    #[error("registration failed")]
    Mint(#[from] mws_wsauth::MintError),
}

impl From<AddressError> for RegisterError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Missing => Self::UrlRequired,
            AddressError::Refused(refusal) => Self::UnsafeUrl(refusal),
        }
    }
}

impl Registry {
    /// Registers an agent that passed the registry gate.
    /// `open` tells that this request came by the open development tier, where an unknown id may register
    /// itself (3.R19).
    ///
    /// # Errors
    /// See [`RegisterError`]; nothing was written.
    pub async fn register(
        &self,
        pass: &RegistryPass,
        request: &Register,
        open: bool,
    ) -> Result<Registered, RegisterError> {
        let parts = self.parts();
        let row = parts.db.registry_row(request.id).await?;
        if row.is_none() && !parts.self_registration && !open {
            return Err(RegisterError::NotFound);
        }
        let address = resolve(&parts.guard, request, row.as_ref()).await?;
        let minted = self.write(pass, request, &address).await?;
        let trusted = minted.is_some() || is_proven(pass);
        let secret =
            if trusted { parts.lifecycle.read_or_heal_inbound_secret(request.id).await } else { None };
        Ok(Registered {
            status: "registered",
            delivery_mode: address.mode,
            auth_token: minted.map(|token| token.token.expose().to_owned()),
            platform_inbound_secret: secret.map(|inbound| inbound.secret.expose_secret().to_owned()),
        })
    }

    /// The one transaction of 3.R14. Returns the token that it minted, if any.
    async fn write(
        &self,
        pass: &RegistryPass,
        request: &Register,
        address: &Address,
    ) -> Result<Option<NewToken>, RegisterError> {
        let card = Value::Object(request.agent_card.clone());
        let registration =
            Registration { agent_card: &card, delivery_mode: address.mode, url: address.url.as_deref() };
        let mut tx = self.parts().db.begin().await?;
        let locked = tx.lock_for_registry(request.id).await?;
        let has_live_token = match &locked {
            Some(row) if row.status == WorkspaceStatus::Removed => return Err(RegisterError::Refused),
            Some(_) => tx.has_live_token(request.id).await?,
            None => false,
        };
        if has_live_token && !is_proven(pass) {
            return Err(RegisterError::Refused);
        }
        match locked {
            Some(_) => {
                tx.register(request.id, &registration).await?.ok_or(RegisterError::Refused)?;
            }
            None => match tx.self_register(request.id, &registration).await {
                // Another registration of this id inserted the row in the same instant.
                Err(error) if error.is_constraint("workspaces_pkey") => return Err(RegisterError::Refused),
                other => other?,
            },
        }
        let minted = if has_live_token { None } else { Some(NewToken::mint()?) };
        if let Some(token) = &minted {
            tx.issue_token(request.id, token, IssuedBy::Register).await?;
        }
        tx.commit().await?;
        Ok(minted)
    }
}

fn is_proven(pass: &RegistryPass) -> bool {
    matches!(pass, RegistryPass::Proven(_))
}
