//! A start to derive from in tests.

use std::collections::BTreeMap;

use mws_models::{Tier, WorkspaceId};
use tokio_util::sync::CancellationToken;

use crate::spec::{ConfigSource, Credentials, StartSpec, WorkspaceMount};

pub(crate) fn spec() -> StartSpec {
    StartSpec {
        workspace_id: WorkspaceId::random(),
        name: None,
        runtime: "sample".into(),
        image: "agent:test".into(),
        tier: Tier::Standard,
        env: BTreeMap::new(),
        platform_url: "http://10.0.0.1:8080".into(),
        awareness_url: None,
        workspace_mount: WorkspaceMount::Volume,
        config: ConfigSource::default(),
        credentials: Credentials::default(),
        reset_session: false,
        cancel: CancellationToken::new(),
    }
}
