//! Which delivery mode and which address a registration ends up with (3.R10 to R13).

use mws_db::registry::RegistryRow;
use mws_egress::{AgentGuard, BlockedAddress, Refusal, Trust};
use mws_models::api::Register;
use mws_models::{DeliveryMode, WorkspaceId, is_external_like};

/// What is stored of a registration's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) mode: DeliveryMode,
    /// `None` keeps the stored one.
    pub(crate) url: Option<String>,
}

/// Why a registration's address is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AddressError {
    Missing,
    Refused(Refusal),
}

/// Resolves mode and address. `row` is `None` for a workspace that registers itself.
pub(crate) async fn resolve(
    guard: &AgentGuard,
    request: &Register,
    row: Option<&RegistryRow>,
) -> Result<Address, AddressError> {
    let mode = mode(guard, request, row).await;
    let keeps_url = row.is_some_and(|row| row.url_provisioned && !is_external_like(&row.runtime));
    if keeps_url {
        if mode == DeliveryMode::Push {
            check_beside(guard, request).await?;
        }
        return Ok(Address { mode, url: None });
    }
    if request.url.is_empty() {
        return match mode {
            DeliveryMode::Push => Err(AddressError::Missing),
            DeliveryMode::Poll => Ok(Address { mode, url: Some(String::new()) }),
        };
    }
    let managed = row.is_some_and(|row| !is_external_like(&row.runtime));
    let accepted = if managed && is_own_container(request.id, &request.url) {
        Ok(())
    } else {
        guard.check_registration(&request.url).await.map(|_| ())
    };
    match (accepted, mode) {
        (Ok(()), _) => Ok(Address { mode, url: Some(request.url.clone()) }),
        (Err(_), DeliveryMode::Poll) => Ok(Address { mode, url: Some(String::new()) }),
        (Err(refusal), DeliveryMode::Push) => Err(AddressError::Refused(refusal)),
    }
}

/// 3.R10, first match wins.
async fn mode(guard: &AgentGuard, request: &Register, row: Option<&RegistryRow>) -> DeliveryMode {
    if let Some(mode) = request.delivery_mode {
        return mode;
    }
    let managed = row.is_some_and(|row| !is_external_like(&row.runtime));
    match row.and_then(RegistryRow::mode) {
        Some(DeliveryMode::Poll) => return DeliveryMode::Poll,
        Some(DeliveryMode::Push) if managed || row.is_some_and(|row| row.has_card) => {
            return DeliveryMode::Push;
        }
        _ => {}
    }
    if managed {
        return DeliveryMode::Push;
    }
    let reachable =
        !request.url.is_empty() && guard.check_dispatch(&request.url, Trust::Reported).await.is_ok();
    if reachable { DeliveryMode::Push } else { DeliveryMode::Poll }
}

/// A managed agent reports a name that resolves only inside its own network; that is no error. An address in
/// a range that is never dialled still is (3.R13).
async fn check_beside(guard: &AgentGuard, request: &Register) -> Result<(), AddressError> {
    if request.url.is_empty() {
        return Err(AddressError::Missing);
    }
    if is_own_container(request.id, &request.url) {
        return Ok(());
    }
    match guard.check_registration(&request.url).await {
        Err(refusal) if !is_local_matter(&refusal) => Err(AddressError::Refused(refusal)),
        _ => Ok(()),
    }
}

/// What says nothing about an agent's own network: a name that does not resolve here, a private address.
fn is_local_matter(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Unresolvable | Refusal::Blocked(BlockedAddress::Loopback | BlockedAddress::Private)
    )
}

/// Whether the address is the container name that this server gave this very workspace (2.R30).
fn is_own_container(id: WorkspaceId, url: &str) -> bool {
    url.strip_prefix("http://")
        .and_then(|rest| rest.strip_prefix(&format!("ws-{}", id.short())))
        .is_some_and(|rest| matches!(rest.trim_end_matches('/'), "" | ":8000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_container_name_is_taken_unseen() {
        // 2.R30
        let id: WorkspaceId = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        for own in ["http://ws-550e8400-e29:8000", "http://ws-550e8400-e29:8000/", "http://ws-550e8400-e29"] {
            assert!(is_own_container(id, own), "{own}");
        }
        for other in [
            "http://ws-550e8400-e29:80",
            "http://ws-550e8400-e29.evil.example:8000",
            "http://ws-550e8400-e28:8000",
            "https://ws-550e8400-e29:8000",
            "http://ws-550e8400-e29:8000@evil.example",
        ] {
            assert!(!is_own_container(id, other), "{other}");
        }
    }
}
