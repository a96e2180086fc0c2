//! The Postgres server of the tests: a given one, or a private one that all test processes of this checkout
//! share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::Context as _;
use mws_db::private::{PrivateConfig, PrivateError, PrivatePostgres, Tuning};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

/// Names a server to use instead of a private one. Its role must be allowed to create databases.
const GIVEN: &str = "MWS_TEST_DATABASE_URL";

/// This process's use of the private server. Weak: it ends with the last test database, since nothing runs
/// at the end of a process that could stop the server.
static SHARED: Mutex<Weak<PrivatePostgres>> = Mutex::const_new(Weak::new());

/// A server for test databases, kept running while this value lives.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    url: String,
    _private: Option<Arc<PrivatePostgres>>,
}

impl Server {
    pub(crate) async fn attach() -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "tests have no configuration but this")]
        if let Ok(url) = std::env::var(GIVEN)
            && !url.is_empty()
        {
            return Ok(Self { url, _private: None });
        }
        let mut shared = SHARED.lock().await;
        let private = match shared.upgrade() {
            Some(private) => private,
            None => Arc::new(start().await?),
        };
        *shared = Arc::downgrade(&private);
        Ok(Self { url: private.url(), _private: Some(private) })
    }

    /// The URL of the database from which others are created.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

async fn start() -> anyhow::Result<PrivatePostgres> {
    let target = target_dir()?;
    let start = |data_dir: PathBuf| PrivatePostgres::start(PrivateConfig { data_dir, tuning: Tuning::Tests });
    match start(target.join("mws-test-postgres")).await {
        // A checkout in root's home, say.
        Err(PrivateError::NotTraversable { .. }) => Ok(start(elsewhere(&target)).await?),
        outcome => Ok(outcome?),
    }
}

/// Cargo's target folder, which holds this test's executable and is marked as a cache.
fn target_dir() -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe().context("where this test is")?;
    executable
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .or_else(|| executable.ancestors().find(|folder| folder.ends_with("deps"))?.ancestors().nth(2))
        .map(Path::to_owned)
        .with_context(|| format!("{} is in no target folder of cargo", executable.display()))
}

/// A folder for a target folder that the account that runs Postgres cannot reach; so this process is root.
fn elsewhere(target: &Path) -> PathBuf {
    let digest = Sha256::digest(target.as_os_str().as_encoded_bytes());
    let hash: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!("/var/lib/mws-test-{hash}"))
}
