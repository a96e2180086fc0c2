//! Class P as the message proxy has it: who sends a message.

use mws_models::WorkspaceId;

use super::Authenticator;
use crate::{Bearer, Caller, Credentials, Denied};

/// Longest part of a forged caller id that is logged, in bytes.
const LOGGED_CLAIM: usize = 64;

/// How the claim to be a certain workspace was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerProof {
    /// By a usable token of that workspace.
    OwnToken(Caller),
    /// By an operator's bearer, whose holder may act for any workspace (5.R68).
    Operator(Caller),
    /// Not at all: the workspace holds no live token, so none was asked for (P7).
    None,
}

/// Who sends a message to a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCaller {
    /// The canvas class: no workspace speaks, no hierarchy applies. The principal is `Admin`, `OrgToken`,
    /// `DevOpen` or the anonymous `Canvas`.
    Canvas(Caller),
    /// The target itself; no hierarchy applies (P3a, 4.R16). The proof is `OwnToken` when the token alone told
    /// who calls, else `None`: a claim to be the target is not checked.
    Itself(CallerProof),
    /// Another workspace. Whoever proved it, the hierarchy between it and the target is checked next (P6).
    Workspace {
        /// The workspace that speaks.
        id: WorkspaceId,
        /// What stands behind the claim.
        proof: CallerProof,
    },
}

impl Authenticator {
    /// Class P of `POST /workspaces/:id/a2a` up to, and without, the hierarchy check (P6).
    ///
    /// The bearer is the authority on who calls; `X-Workspace-ID` is a hint that must agree with it (5.R60). So
    /// a usable token of one workspace never speaks for another, not even for one that holds no token.
    ///
    /// # Errors
    /// `InvalidCallerId`, logged as a forgery; `MissingCallerToken`, `InvalidCallerToken`; `Unavailable`; and,
    /// when the policy requires callers to prove themselves, class W's refusals for the canvas class (4.R17).
    pub async fn peer(
        &self,
        credentials: &Credentials<'_>,
        target: WorkspaceId,
    ) -> Result<PeerCaller, Denied> {
        let Some(claim) = credentials.claim() else {
            return self.unnamed(credentials, target).await;
        };
        // Labels of the server itself (`system:`, `webhook:`, `test:`, `channel:`) are no UUIDs either.
        let Ok(claimed) = claim.parse::<WorkspaceId>() else {
            let shown = &claim[..claim.floor_char_boundary(LOGGED_CLAIM)];
            tracing::warn!(target: "security", claim = ?shown, peer = %credentials.peer, "forged caller id");
            return Err(Denied::InvalidCallerId);
        };
        if claimed == target {
            return Ok(PeerCaller::Itself(CallerProof::None));
        }
        let proof = self.prove(credentials.bearer, claimed).await?;
        Ok(PeerCaller::Workspace { id: claimed, proof })
    }

    /// No workspace is named: a workspace's bearer tells which one calls; everything else is the canvas class,
    /// also a bearer that is no longer usable (5.R18, 4.R12).
    async fn unnamed(
        &self,
        credentials: &Credentials<'_>,
        target: WorkspaceId,
    ) -> Result<PeerCaller, Denied> {
        if let Some(bearer) = credentials.bearer {
            if self.policy.is_admin(bearer) {
                return Ok(PeerCaller::Canvas(Caller::Admin));
            }
            if let Some(token) = self.lookups.workspace_bearer(bearer).await? {
                let proof = CallerProof::OwnToken(self.lookups.admit_workspace(token));
                return Ok(match token.workspace_id {
                    id if id == target => PeerCaller::Itself(proof),
                    id => PeerCaller::Workspace { id, proof },
                });
            }
            if let Some(caller) = self.lookups.org_caller(bearer).await? {
                return Ok(PeerCaller::Canvas(caller));
            }
        }
        if !self.policy.require_caller_auth {
            return Ok(PeerCaller::Canvas(Caller::Canvas));
        }
        // A bearer that gets here is nobody's, which is class W's refusal for it (W6).
        match credentials.bearer {
            Some(_) => Err(Denied::InvalidWorkspaceToken),
            None => self.workspace(credentials, &target.to_string()).await.map(PeerCaller::Canvas),
        }
    }

    async fn prove(&self, bearer: Option<Bearer<'_>>, claimed: WorkspaceId) -> Result<CallerProof, Denied> {
        let enrolled = async || {
            let row = self.lookups.gate(claimed).await?;
            Ok::<_, Denied>(row.is_some_and(|row| row.has_live_token))
        };
        let Some(bearer) = bearer else {
            return if enrolled().await? { Err(Denied::MissingCallerToken) } else { Ok(CallerProof::None) };
        };
        if self.policy.is_admin(bearer) {
            return Ok(CallerProof::Operator(Caller::Admin));
        }
        if let Some(token) = self.lookups.workspace_bearer(bearer).await? {
            return if token.workspace_id == claimed {
                Ok(CallerProof::OwnToken(self.lookups.admit_workspace(token)))
            } else {
                Err(Denied::InvalidCallerToken)
            };
        }
        if let Some(caller) = self.lookups.org_caller(bearer).await? {
            return Ok(CallerProof::Operator(caller));
        }
        if enrolled().await? { Err(Denied::InvalidCallerToken) } else { Ok(CallerProof::None) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, LIVE, creds, far, hosted, with};
    use super::*;
    use crate::{AuthPolicy, Environment};
    use mws_models::WorkspaceStatus;

    fn naming<'a>(base: Credentials<'a>, claim: &'a str) -> Credentials<'a> {
        Credentials { claimed_workspace: Some(claim), ..base }
    }

    #[tokio::test]
    async fn nobody_claims_to_be_the_server() {
        // P1, 4.R11, 5.R59, 5.R221, 5.T10
        let fake = Fake::default();
        let target = fake.workspace(LIVE);
        let org = fake.org_token(None);
        let auth = fake.authenticator(hosted());
        let bare = target.to_string().replace('-', "");
        let long = "é".repeat(60);
        for claim in
            ["system:x", "webhook:github", "test:", "channel:slack", "bob", "\u{fffd}", " ", &bare, &long]
        {
            for base in [creds(), *with(&creds(), "admin-secret"), *with(&creds(), &org)] {
                let answer = auth.peer(&naming(base, claim), target).await;
                assert_eq!(answer, Err(Denied::InvalidCallerId), "{claim}");
            }
        }
        assert_eq!(fake.lookups(), 0);
    }

    #[tokio::test]
    async fn an_unnamed_caller_is_known_by_its_bearer() {
        // P2, 4.R12, 4.R13, 5.R18, 5.R60
        let fake = Fake::default();
        let (target, peer) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let removed = fake.workspace(WorkspaceStatus::Removed);
        let (own, peers, dead) = (fake.token(target), fake.token(peer), fake.token(removed));
        let org = fake.org_token(Some(peer));
        let revoked = fake.token(peer);
        fake.revoke(&revoked);
        let auth = fake.authenticator(hosted());
        let ask = |bearer| auth.peer(with(&creds(), bearer), target);
        let canvas = |caller| Ok(PeerCaller::Canvas(caller));

        assert_eq!(auth.peer(&creds(), target).await, canvas(Caller::Canvas));
        assert_eq!(auth.peer(&naming(creds(), ""), target).await, canvas(Caller::Canvas));
        assert_eq!(auth.peer(&far(), target).await, canvas(Caller::Canvas));
        assert_eq!(ask("admin-secret").await, canvas(Caller::Admin));
        assert_eq!(ask(&org).await, canvas(fake.org_caller(&org)));
        for bearer in [&revoked, &dead, "junk"] {
            assert_eq!(ask(bearer).await, canvas(Caller::Canvas));
        }
        let proof = CallerProof::OwnToken(fake.workspace_caller(&peers));
        assert_eq!(ask(&peers).await, Ok(PeerCaller::Workspace { id: peer, proof }));
        let proof = CallerProof::OwnToken(fake.workspace_caller(&own));
        assert_eq!(ask(&own).await, Ok(PeerCaller::Itself(proof))); // 4.R16
    }

    #[tokio::test]
    async fn a_named_caller_proves_it() {
        let fake = Fake::default();
        let (target, peer, third) = (fake.workspace(LIVE), fake.workspace(LIVE), fake.workspace(LIVE));
        let (targets, peers, thirds) = (fake.token(target), fake.token(peer), fake.token(third));
        let org = fake.org_token(None);
        let revoked = fake.token(peer);
        fake.revoke(&revoked);
        let auth = fake.authenticator(hosted());
        let name = peer.to_string();
        let upper = name.to_uppercase();
        let base = naming(creds(), &name);
        let ask = |bearer| auth.peer(with(&base, bearer), target);
        let pass = |proof| Ok(PeerCaller::Workspace { id: peer, proof });

        // P3a, 4.R16: an agent waking itself
        let itself = target.to_string().to_uppercase();
        for base in [creds(), *with(&creds(), "junk"), *with(&creds(), &thirds)] {
            let answer = auth.peer(&naming(base, &itself), target).await;
            assert_eq!(answer, Ok(PeerCaller::Itself(CallerProof::None)));
        }
        // P3b, 4.R15, 5.R68, 5.T9
        assert_eq!(ask("admin-secret").await, pass(CallerProof::Operator(Caller::Admin)));
        assert_eq!(ask(&org).await, pass(CallerProof::Operator(fake.org_caller(&org))));
        // P4, 4.R14
        assert_eq!(auth.peer(&base, target).await, Err(Denied::MissingCallerToken));
        // P5, 4.R14
        for bearer in [&targets, &thirds, &revoked, "junk"] {
            assert_eq!(ask(bearer).await, Err(Denied::InvalidCallerToken));
        }
        // P7
        let own = CallerProof::OwnToken(fake.workspace_caller(&peers));
        assert_eq!(ask(&peers).await, pass(own.clone()));
        let answer = auth.peer(with(&naming(creds(), &upper), &peers), target).await;
        assert_eq!(answer, pass(own));
    }

    #[tokio::test]
    async fn a_caller_without_tokens_passes_unproven() {
        // P7, 4.R14; 5.R60, 5.R68: but not with another workspace's bearer
        let fake = Fake::default();
        let (target, legacy) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let targets = fake.token(target);
        let auth = fake.authenticator(hosted());
        for id in [legacy, WorkspaceId::random()] {
            let name = id.to_string();
            let base = naming(creds(), &name);
            let unproven = Ok(PeerCaller::Workspace { id, proof: CallerProof::None });
            assert_eq!(auth.peer(&base, target).await, unproven);
            assert_eq!(auth.peer(with(&base, "junk"), target).await, unproven);
            let answer = auth.peer(with(&base, &targets), target).await;
            assert_eq!(answer, Err(Denied::InvalidCallerToken));
        }
    }

    #[tokio::test]
    async fn the_proxy_can_be_closed_to_anonymous_callers() {
        // 4.R17
        let fake = Fake::default();
        let (target, peer) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let peers = fake.token(peer);
        let org = fake.org_token(None);
        let auth = fake.authenticator(AuthPolicy { require_caller_auth: true, ..hosted() });
        let ask = |bearer| auth.peer(with(&creds(), bearer), target);
        assert_eq!(auth.peer(&creds(), target).await, Err(Denied::MissingWorkspaceToken));
        assert_eq!(ask("junk").await, Err(Denied::InvalidWorkspaceToken));
        assert_eq!(ask("admin-secret").await, Ok(PeerCaller::Canvas(Caller::Admin)));
        assert_eq!(ask(&org).await, Ok(PeerCaller::Canvas(fake.org_caller(&org))));
        let proof = CallerProof::OwnToken(fake.workspace_caller(&peers));
        assert_eq!(ask(&peers).await, Ok(PeerCaller::Workspace { id: peer, proof }));

        let dev = AuthPolicy {
            require_caller_auth: true,
            environment: Environment::Development,
            ..AuthPolicy::default()
        };
        let auth = fake.authenticator(dev);
        assert_eq!(auth.peer(&creds(), target).await, Ok(PeerCaller::Canvas(Caller::DevOpen)));
        assert_eq!(auth.peer(&far(), target).await, Err(Denied::MissingWorkspaceToken));
        let junk = auth.peer(with(&creds(), "junk"), target).await;
        assert_eq!(junk, Err(Denied::InvalidWorkspaceToken)); // 5.R44
    }

    #[tokio::test]
    async fn a_store_failure_is_503_and_never_the_canvas_class() {
        // P3, 4.R12, 4.R3
        let fake = Fake::default();
        let (target, peer) = (fake.workspace(LIVE), fake.workspace(LIVE));
        let peers = fake.token(peer);
        let name = peer.to_string();
        let auth = fake.authenticator(hosted());
        let named = naming(creds(), &name);

        fake.break_workspace_tokens();
        for base in [&creds(), &named] {
            assert_eq!(auth.peer(with(base, &peers), target).await, Err(Denied::Unavailable));
        }
        fake.mend();
        fake.break_org_tokens();
        for base in [&creds(), &named] {
            assert_eq!(auth.peer(with(base, "junk"), target).await, Err(Denied::Unavailable));
        }
        fake.mend();
        fake.break_gate();
        assert_eq!(auth.peer(&named, target).await, Err(Denied::Unavailable));
        assert_eq!(auth.peer(with(&named, "junk"), target).await, Err(Denied::Unavailable));
    }
}
