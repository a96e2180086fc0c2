//! The environment an agent starts with (2.R87–R94): secrets, model, role, parent, git identity.

use std::collections::BTreeMap;

use mws_db::secrets::{SealedRow, SecretRows};
use mws_db::workspaces::ProvisionRow;
use mws_models::WorkspaceId;
use mws_secrets::{Binding, KeyRing};
use secrecy::ExposeSecret;

use crate::Failure;

/// The assembled map. Values are secrets: it has no `Debug`.
pub(crate) struct Environment {
    pub(crate) vars: BTreeMap<String, String>,
}

impl Environment {
    /// Decrypts every secret and assembles the map. One undecryptable row is a failure: an agent without its
    /// keys would fail later, and obscurely.
    pub(crate) fn assemble(
        id: WorkspaceId,
        row: &ProvisionRow,
        secrets: &SecretRows,
        keys: &KeyRing,
        request_model: Option<&str>,
    ) -> Result<Self, Failure> {
        let owner = id.to_string();
        let mut vars = BTreeMap::new();
        for sealed in &secrets.global {
            let value =
                open(keys, &Binding::global(&sealed.key), sealed).ok_or(Failure::GlobalSecretDecrypt)?;
            vars.insert(sealed.key.clone(), value);
        }
        for sealed in &secrets.workspace {
            let value = open(keys, &Binding::workspace(&owner, &sealed.key), sealed)
                .ok_or(Failure::WorkspaceSecretDecrypt)?;
            vars.insert(sealed.key.clone(), value);
        }
        add_git_identity(&mut vars, &row.name);
        add_model(&mut vars, &row.runtime, request_model);
        if let Some(role) = row.role.as_deref().filter(|role| !role.is_empty()) {
            vars.insert("MOLECULE_AGENT_ROLE".into(), role.into());
        }
        if let Some(parent) = row.parent_id {
            vars.insert("PARENT_ID".into(), parent.to_string());
        }
        Ok(Self { vars })
    }

    /// The picked model, if any.
    pub(crate) fn model(&self) -> Option<&str> {
        self.vars.get("MODEL").map(String::as_str).filter(|model| !model.is_empty())
    }
}

fn open(keys: &KeyRing, binding: &Binding<'_>, sealed: &SealedRow) -> Option<String> {
    let plain = keys
        .open(binding, &sealed.bytes, sealed.version)
        .inspect_err(|error| {
            tracing::error!(key = %sealed.key, error = error as &dyn std::error::Error, "a secret does not decrypt");
        })
        .ok()?;
    plain.into_text().ok().map(|text| text.expose_secret().to_owned())
}

/// 2.R89: the picked model is the create's, else `MOLECULE_MODEL`, else `MODEL`; `MODEL_PROVIDER` is never
/// consulted (2.R90).
fn add_model(vars: &mut BTreeMap<String, String>, runtime: &str, request: Option<&str>) {
    let set = |name: &str| vars.get(name).filter(|value| !value.is_empty()).cloned();
    let request = request.filter(|model| !model.is_empty()).map(str::to_owned);
    let Some(model) = request.or_else(|| set("MOLECULE_MODEL")).or_else(|| set("MODEL")) else {
        for name in ["MODEL", "MOLECULE_MODEL"] {
            vars.remove(name);
        }
        return;
    };
    if vars.get("MODEL_PROVIDER").is_some_and(|other| *other != model) {
        tracing::warn!(
            "a secret MODEL_PROVIDER differs from the workspace's model; the runtime may prefer it"
        );
    }
    if runtime == "hermes" {
        vars.insert("HERMES_DEFAULT_MODEL".into(), model.clone());
    }
    vars.insert("MODEL".into(), model.clone());
    vars.insert("MOLECULE_MODEL".into(), model);
}

/// 2.R94: who signs the commits. Each name only where a secret has not set it, be it to nothing.
fn add_git_identity(vars: &mut BTreeMap<String, String>, name: &str) {
    let name = name.trim();
    if name.is_empty() {
        return;
    }
    let author = format!("Molecule AI {name}");
    let email = format!("{}@agents.moleculesai.app", slug(name));
    for (key, value) in [
        ("GIT_AUTHOR_NAME", &author),
        ("GIT_COMMITTER_NAME", &author),
        ("GIT_AUTHOR_EMAIL", &email),
        ("GIT_COMMITTER_EMAIL", &email),
    ] {
        vars.entry(key.into()).or_insert_with(|| value.clone());
    }
}

fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "agent".into() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mws_models::WorkspaceStatus;

    fn row(runtime: &str) -> ProvisionRow {
        ProvisionRow {
            name: "  PMM – Lead #2 ".into(),
            role: Some("pmm-lead".into()),
            tier: 2,
            runtime: runtime.into(),
            status: WorkspaceStatus::Provisioning,
            parent_id: None,
            workspace_dir: None,
            workspace_access: "none".into(),
            instance_id: None,
            url_provisioned: false,
            generation: 1,
        }
    }

    fn plain(key: &str, value: &str) -> SealedRow {
        SealedRow { key: key.into(), bytes: value.into(), version: 0 }
    }

    fn assemble(
        runtime: &str,
        global: Vec<SealedRow>,
        workspace: Vec<SealedRow>,
    ) -> BTreeMap<String, String> {
        let secrets = SecretRows { global, workspace };
        Environment::assemble(WorkspaceId::random(), &row(runtime), &secrets, &KeyRing::disabled(), None)
            .map(|env| env.vars)
            .unwrap_or_default()
    }

    #[test]
    fn the_workspaces_value_wins() {
        // 2.R87, 2.R88
        let vars = assemble("x", vec![plain("A", "global"), plain("B", "global")], vec![plain("A", "own")]);
        assert_eq!((vars["A"].as_str(), vars["B"].as_str()), ("own", "global"));
        assert_eq!(vars["MOLECULE_AGENT_ROLE"], "pmm-lead");
        assert!(!vars.contains_key("PARENT_ID"));
    }

    #[test]
    fn git_identity_fills_gaps_only() {
        // 2.R94
        let vars = assemble("x", vec![], vec![plain("GIT_AUTHOR_EMAIL", "")]);
        assert_eq!(vars["GIT_AUTHOR_NAME"], "Molecule AI PMM – Lead #2");
        assert_eq!(vars["GIT_AUTHOR_EMAIL"], "");
        assert_eq!(vars["GIT_COMMITTER_EMAIL"], "pmm-lead-2@agents.moleculesai.app");
        assert_eq!(slug("$$$"), "agent");
    }

    #[test]
    fn the_model_reaches_every_runtime() {
        // 2.R89
        let vars = assemble("hermes", vec![], vec![plain("MODEL", "a/b")]);
        for name in ["MODEL", "MOLECULE_MODEL", "HERMES_DEFAULT_MODEL"] {
            assert_eq!(vars[name], "a/b");
        }
        let vars = assemble("x", vec![plain("MOLECULE_MODEL", "c/d")], vec![plain("MODEL", "a/b")]);
        assert_eq!(vars["MODEL"], "c/d");
        assert!(!vars.contains_key("HERMES_DEFAULT_MODEL"));
    }

    #[test]
    fn model_provider_is_never_the_model() {
        // 2.R90, 5.R154
        let vars = assemble("hermes", vec![], vec![plain("MODEL_PROVIDER", "a/b")]);
        assert_eq!(vars["MODEL_PROVIDER"], "a/b");
        for name in ["MODEL", "MOLECULE_MODEL", "HERMES_DEFAULT_MODEL"] {
            assert!(!vars.contains_key(name), "{name}");
        }
    }

    #[test]
    fn one_undecryptable_secret_fails_the_start() {
        // 2.R87, 5.R232
        let sealed = SealedRow { key: "K".into(), bytes: vec![2; 60], version: 2 };
        for (global, workspace, failure) in [
            (vec![sealed.clone()], vec![], Failure::GlobalSecretDecrypt),
            (vec![], vec![sealed.clone()], Failure::WorkspaceSecretDecrypt),
        ] {
            let secrets = SecretRows { global, workspace };
            let outcome =
                Environment::assemble(WorkspaceId::random(), &row("x"), &secrets, &KeyRing::disabled(), None);
            assert_eq!(outcome.err(), Some(failure));
        }
    }
}
