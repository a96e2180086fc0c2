//! Secrets as stored bytes. Sealing and opening is the caller's; bytes and version always travel together.

use mws_models::WorkspaceId;

use crate::error::bounded;
use crate::{Db, Result, Tx};

/// A sealed value as it rests.
#[derive(Clone)]
pub struct SealedRow {
    pub key: String,
    pub bytes: Vec<u8>,
    pub version: i32,
}

/// Every secret that a start of a workspace needs, from one query.
pub struct SecretRows {
    pub global: Vec<SealedRow>,
    pub workspace: Vec<SealedRow>,
}

impl Tx {
    /// Sets a workspace secret; `created_at` of an existing one stays (5.R141).
    pub async fn put_secret(&mut self, id: WorkspaceId, key: &str, bytes: &[u8], version: i32) -> Result<()> {
        bounded(
            sqlx::query!(
                "INSERT INTO workspace_secrets (workspace_id, key, encrypted_value, encryption_version)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (workspace_id, key) DO UPDATE SET
                     encrypted_value = EXCLUDED.encrypted_value,
                     encryption_version = EXCLUDED.encryption_version, updated_at = now()",
                id.uuid(),
                key,
                bytes,
                version
            )
            .execute(self.connection()),
        )
        .await
        .map(|_| ())
    }

    /// Replaces the platform's inbound secret; `false` when the workspace is removed.
    pub async fn put_inbound_secret(&mut self, id: WorkspaceId, stored: &str) -> Result<bool> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspaces SET platform_inbound_secret = $2 WHERE id = $1 AND status <> 'removed'",
                id.uuid(),
                stored
            )
            .execute(self.connection()),
        )
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

impl Db {
    /// Global and workspace secrets, in one query.
    pub async fn secrets_for_start(&self, id: WorkspaceId) -> Result<SecretRows> {
        let rows = bounded(
            sqlx::query!(
                r#"SELECT true AS "global!", key AS "key!", encrypted_value AS "bytes!", encryption_version AS "version!"
                   FROM global_secrets
                   UNION ALL
                   SELECT false, key, encrypted_value, encryption_version
                   FROM workspace_secrets WHERE workspace_id = $1"#,
                id.uuid()
            )
            .fetch_all(&self.pool),
        )
        .await?;
        let mut secrets = SecretRows { global: Vec::new(), workspace: Vec::new() };
        for row in rows {
            let sealed = SealedRow { key: row.key, bytes: row.bytes, version: row.version };
            if row.global { &mut secrets.global } else { &mut secrets.workspace }.push(sealed);
        }
        Ok(secrets)
    }

    /// The stored inbound secret: outer `None` for no such live workspace, inner for none set.
    pub async fn inbound_secret(&self, id: WorkspaceId) -> Result<Option<Option<String>>> {
        let row = bounded(
            sqlx::query_scalar!(
                r#"SELECT NULLIF(platform_inbound_secret, '') AS stored
                   FROM workspaces WHERE id = $1 AND status <> 'removed'"#,
                id.uuid()
            )
            .fetch_optional(&self.pool),
        )
        .await?;
        Ok(row)
    }

    /// Sets the inbound secret where there is none; `false` when somebody else was first (5.R32).
    pub async fn heal_inbound_secret(&self, id: WorkspaceId, stored: &str) -> Result<bool> {
        let done = bounded(
            sqlx::query!(
                "UPDATE workspaces SET platform_inbound_secret = $2
                 WHERE id = $1 AND status <> 'removed' AND COALESCE(platform_inbound_secret, '') = ''",
                id.uuid(),
                stored
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Rewrites an inbound secret of an earlier time enveloped, if it still is what was read (5.R28).
    pub async fn rewrap_inbound_secret(&self, id: WorkspaceId, old: &str, stored: &str) -> Result<()> {
        bounded(
            sqlx::query!(
                "UPDATE workspaces SET platform_inbound_secret = $3
                 WHERE id = $1 AND status <> 'removed' AND platform_inbound_secret = $2",
                id.uuid(),
                old,
                stored
            )
            .execute(&self.pool),
        )
        .await
        .map(|_| ())
    }

    /// How many stored secrets are encrypted: told at boot when no key is configured (5.R126).
    pub async fn count_encrypted_secrets(&self) -> Result<i64> {
        bounded(
            sqlx::query_scalar!(
                r#"SELECT (SELECT count(*) FROM workspace_secrets WHERE encryption_version > 0)
                        + (SELECT count(*) FROM global_secrets WHERE encryption_version > 0) AS "count!""#
            )
            .fetch_one(&self.pool),
        )
        .await
    }
}
