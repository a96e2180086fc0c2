//! A token store in memory for the decision tables: it holds rows, counts lookups, and breaks on demand.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mws_models::{OrgTokenId, TokenId, WorkspaceId, WorkspaceStatus};

use super::Authenticator;
use crate::{
    AdminToken, AuthPolicy, Bearer, BearerToken, Caller, Credentials, GateRow, OrgToken, StoreFailure,
    TokenHash, TokenStore, UsedToken, WorkspaceToken,
};

pub(super) const LIVE: WorkspaceStatus = WorkspaceStatus::Online;

/// A request from this machine with no credential.
pub(super) fn creds() -> Credentials<'static> {
    Credentials {
        bearer: None,
        origin: None,
        host: Some("localhost:8080"),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        claimed_workspace: None,
    }
}

/// A request from the internet with no credential.
pub(super) fn far() -> Credentials<'static> {
    Credentials { peer: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), ..creds() }
}

/// The same request with a bearer. Leaks a few bytes, so that tables stay readable.
pub(super) fn with<'a>(base: &Credentials<'a>, bearer: &str) -> &'a Credentials<'a> {
    let header: &'static str = Box::leak(format!("Bearer {bearer}").into_boxed_str());
    Box::leak(Box::new(Credentials { bearer: Bearer::from_header(header.as_bytes()), ..*base }))
}

/// An installation with `ADMIN_TOKEN=admin-secret`.
pub(super) fn hosted() -> AuthPolicy {
    AuthPolicy { admin_token: AdminToken::new("admin-secret"), ..AuthPolicy::default() }
}

#[derive(Default)]
struct Rows {
    workspaces: HashMap<WorkspaceId, WorkspaceStatus>,
    tokens: HashMap<TokenHash, WorkspaceToken>,
    org_tokens: HashMap<TokenHash, OrgToken>,
    used: Vec<UsedToken>,
    lookups: usize,
    broken: Broken,
}

#[derive(Default, Clone, Copy)]
struct Broken {
    workspace_tokens: bool,
    org_tokens: bool,
    gate: bool,
    probe: bool,
    hangs: bool,
}

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Rows>>);

impl Fake {
    fn rows<T>(&self, with: impl FnOnce(&mut Rows) -> T) -> T {
        with(&mut self.0.lock().unwrap())
    }

    pub(super) fn authenticator(&self, policy: AuthPolicy) -> Authenticator {
        Authenticator::new(Arc::new(self.clone()), policy)
    }

    pub(super) fn workspace(&self, status: WorkspaceStatus) -> WorkspaceId {
        let id = WorkspaceId::random();
        self.rows(|rows| rows.workspaces.insert(id, status));
        id
    }

    pub(super) fn remove(&self, id: WorkspaceId) {
        self.rows(|rows| rows.workspaces.insert(id, WorkspaceStatus::Removed));
    }

    pub(super) fn token(&self, workspace_id: WorkspaceId) -> String {
        let plain = BearerToken::mint().unwrap().expose().to_owned();
        let token = WorkspaceToken { token_id: TokenId::random(), workspace_id };
        self.rows(|rows| rows.tokens.insert(TokenHash::of(&plain), token));
        plain
    }

    pub(super) fn org_token(&self, org_id: Option<WorkspaceId>) -> String {
        let plain = BearerToken::mint().unwrap().expose().to_owned();
        let token = OrgToken { id: OrgTokenId::random(), prefix: plain[..8].to_owned(), org_id };
        self.rows(|rows| rows.org_tokens.insert(TokenHash::of(&plain), token));
        plain
    }

    pub(super) fn revoke(&self, plain: &str) {
        self.rows(|rows| rows.tokens.remove(&TokenHash::of(plain)));
    }

    pub(super) fn workspace_caller(&self, plain: &str) -> Caller {
        let token = self.rows(|rows| rows.tokens[&TokenHash::of(plain)]);
        Caller::Workspace { workspace_id: token.workspace_id, token_id: token.token_id }
    }

    pub(super) fn org_caller(&self, plain: &str) -> Caller {
        let token = self.rows(|rows| rows.org_tokens[&TokenHash::of(plain)].clone());
        Caller::OrgToken { id: token.id, prefix: token.prefix, org_id: token.org_id }
    }

    pub(super) fn used_key(&self, plain: &str) -> UsedToken {
        let hash = TokenHash::of(plain);
        self.rows(|rows| match rows.tokens.get(&hash) {
            Some(token) => UsedToken::Workspace(token.token_id),
            None => UsedToken::Org(rows.org_tokens[&hash].id),
        })
    }

    pub(super) fn used(&self) -> Vec<UsedToken> {
        self.rows(|rows| rows.used.clone())
    }

    pub(super) fn lookups(&self) -> usize {
        self.rows(|rows| rows.lookups)
    }

    pub(super) fn break_workspace_tokens(&self) {
        self.rows(|rows| rows.broken.workspace_tokens = true);
    }

    pub(super) fn break_org_tokens(&self) {
        self.rows(|rows| rows.broken.org_tokens = true);
    }

    pub(super) fn break_gate(&self) {
        self.rows(|rows| rows.broken.gate = true);
    }

    pub(super) fn break_probe(&self) {
        self.rows(|rows| rows.broken.probe = true);
    }

    pub(super) fn hang(&self) {
        self.rows(|rows| rows.broken.hangs = true);
    }

    pub(super) fn mend(&self) {
        self.rows(|rows| rows.broken = Broken::default());
    }

    async fn answer<T>(
        &self,
        breaks: impl Fn(Broken) -> bool,
        read: impl FnOnce(&Rows) -> T,
    ) -> Result<T, StoreFailure> {
        self.rows(|rows| rows.lookups += 1);
        let broken = self.rows(|rows| rows.broken);
        if broken.hangs {
            std::future::pending::<()>().await;
        }
        if breaks(broken) {
            return Err(StoreFailure::new("connection to 10.0.0.5 refused"));
        }
        Ok(self.rows(|rows| read(rows)))
    }
}

#[async_trait]
impl TokenStore for Fake {
    async fn usable_workspace_token(&self, hash: &TokenHash) -> Result<Option<WorkspaceToken>, StoreFailure> {
        let usable = |rows: &Rows| {
            let token = *rows.tokens.get(hash)?;
            let status = rows.workspaces.get(&token.workspace_id)?;
            (*status != WorkspaceStatus::Removed).then_some(token)
        };
        self.answer(|broken| broken.workspace_tokens, usable).await
    }

    async fn usable_org_token(&self, hash: &TokenHash) -> Result<Option<OrgToken>, StoreFailure> {
        self.answer(|broken| broken.org_tokens, |rows| rows.org_tokens.get(hash).cloned()).await
    }

    async fn any_live_token(&self) -> Result<bool, StoreFailure> {
        let any = |rows: &Rows| !rows.tokens.is_empty() || !rows.org_tokens.is_empty();
        self.answer(|broken| broken.probe, any).await
    }

    async fn registry_gate(&self, workspace: WorkspaceId) -> Result<Option<GateRow>, StoreFailure> {
        let gate = |rows: &Rows| {
            let status = *rows.workspaces.get(&workspace)?;
            let has_live_token = rows.tokens.values().any(|token| token.workspace_id == workspace);
            Some(GateRow { status, has_live_token })
        };
        self.answer(|broken| broken.gate, gate).await
    }

    fn used(&self, token: UsedToken) {
        self.rows(|rows| rows.used.push(token));
    }
}

#[test]
fn a_failure_shows_nothing_of_its_cause() {
    // 5.R76
    let failure = StoreFailure::new("connection to 10.0.0.5 refused");
    assert_eq!(format!("{failure} {failure:?}"), "the token store did not answer StoreFailure");
    assert!(std::error::Error::source(&failure).is_some());
}
