//! The two secrets that live as files in `/configs`.

use std::io;
use std::path::Path;

use subtle::ConstantTimeEq;
use tokio::io::AsyncWriteExt;

/// The agent's bearer at the server.
pub(crate) const AUTH_TOKEN: &str = ".auth_token";
/// What the server presents to the agent.
pub(crate) const INBOUND_SECRET: &str = ".platform_inbound_secret";

/// Bounds what is read of a file that holds 43 characters.
const MAX_SECRET_BYTES: usize = 4096;

/// Read at each use: the file may have been replaced. Absent, empty and unreadable are `None`.
pub(crate) async fn read(configs: &Path, name: &str) -> Option<String> {
    let text = tokio::fs::read_to_string(configs.join(name)).await.ok()?;
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_SECRET_BYTES).then(|| text.to_owned())
}

/// 0600, and never half-written: a temporary file takes the place of the old one.
pub(crate) async fn persist(configs: &Path, name: &str, secret: &str) -> io::Result<()> {
    let temporary = configs.join(format!("{name}.new"));
    // A file left by a crash may have another mode.
    let _ = tokio::fs::remove_file(&temporary).await;
    let mut file =
        tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).await?;
    file.write_all(secret.as_bytes()).await?;
    file.sync_all().await?;
    tokio::fs::rename(&temporary, configs.join(name)).await
}

/// Whether a request's `Authorization` carries the secret. No secret is no access.
pub(crate) fn matches(authorization: Option<&str>, secret: Option<&str>) -> bool {
    let presented = authorization.and_then(|value| value.strip_prefix("Bearer "));
    match (presented, secret) {
        (Some(presented), Some(secret)) => presented.as_bytes().ct_eq(secret.as_bytes()).into(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn no_secret_is_no_access() {
        // 13.3: fail closed
        assert!(matches(Some("Bearer s"), Some("s")));
        assert!(!matches(Some("Bearer s"), None));
        assert!(!matches(Some("Bearer x"), Some("s")));
        assert!(!matches(Some("s"), Some("s")));
        assert!(!matches(None, Some("s")));
    }

    #[tokio::test]
    async fn a_secret_is_private_and_replaced_whole() {
        // 13.2 step 5
        let folder = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(read(&folder, AUTH_TOKEN).await, None);
        persist(&folder, AUTH_TOKEN, "one").await.unwrap();
        persist(&folder, AUTH_TOKEN, "two").await.unwrap();
        assert_eq!(read(&folder, AUTH_TOKEN).await.as_deref(), Some("two"));
        let mode = std::fs::metadata(folder.join(AUTH_TOKEN)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
