//! The template that test databases are copied from: the migrated schema and the guard of the statuses, made
//! once for each version of the two.

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;

use crate::server::Server;
use crate::{edges, sql};

/// Advisory lock under which templates are made and leftovers removed; a constant of this crate.
const LOCK: i64 = 0x6d77_735f_7465_7374;

/// A test database older than this belongs to a test that was killed.
const STALE_SECONDS: u32 = 3600;

/// A template that was made longer ago than this is removed; who still needs it makes it again.
const OLD_TEMPLATE_SECONDS: u32 = 7 * 24 * 3600;

/// Makes the template unless it is there; its name.
pub(crate) async fn ensure(server: &Server, admin: &mut PgConnection) -> anyhow::Result<String> {
    let guard = edges::guard();
    let name = name(&mws_db::migrations_fingerprint(), &guard);
    let complete = format!("SELECT 1 FROM pg_database WHERE datname = '{name}' AND datistemplate");
    if sql::exists(admin, &complete).await? {
        return Ok(name);
    }
    sql::execute(admin, &format!("SELECT pg_advisory_lock({LOCK})")).await?;
    let outcome =
        if sql::exists(admin, &complete).await? { Ok(()) } else { make(server, admin, &name, &guard).await };
    sql::execute(admin, &format!("SELECT pg_advisory_unlock({LOCK})")).await?;
    outcome.with_context(|| format!("the template {name}"))?;
    Ok(name)
}

async fn make(server: &Server, admin: &mut PgConnection, name: &str, guard: &str) -> anyhow::Result<()> {
    remove_leftovers(admin).await?;
    // One that is half made: it is marked as a template at the end.
    sql::execute(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    sql::execute(admin, &format!("CREATE DATABASE {name}")).await?;
    let url = sql::with_database(server.url(), name)?;
    mws_db::migrate(&url).await.context("migrations")?;
    let mut inside = sql::connect(&url).await?;
    sql::execute(&mut inside, guard).await.context("the guard of the statuses")?;
    sqlx::Connection::close(inside).await?;

    // An open session would make every copy wait and fail.
    sql::execute(admin, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await?;
    let sessions = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    sql::execute(admin, &sessions).await?;
    let made = sql::column(admin, "SELECT extract(epoch FROM now())::bigint").await?;
    let made = made.into_iter().flatten().next().context("the server's clock")?;
    sql::execute(admin, &format!("COMMENT ON DATABASE {name} IS '{made}'")).await?;
    sql::execute(admin, &format!("ALTER DATABASE {name} IS_TEMPLATE true")).await?;
    Ok(())
}

/// Removes databases of killed tests and templates of older schemas. Names carry no quotes: the patterns say
/// what they hold.
async fn remove_leftovers(admin: &mut PgConnection) -> anyhow::Result<()> {
    let stale = format!(
        "SELECT datname FROM pg_database WHERE datname ~ '^t_[0-9]{{1,18}}_[0-9a-f]+$'
         AND split_part(datname, '_', 2)::bigint < extract(epoch FROM now()) - {STALE_SECONDS}"
    );
    for name in sql::column(admin, &stale).await?.into_iter().flatten() {
        sql::execute(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    }
    let old = format!(
        "SELECT datname FROM pg_database WHERE datname ~ '^mws_template_[0-9a-f]+$'
         AND shobj_description(oid, 'pg_database') ~ '^[0-9]{{1,18}}$'
         AND shobj_description(oid, 'pg_database')::bigint < extract(epoch FROM now()) - {OLD_TEMPLATE_SECONDS}"
    );
    for name in sql::column(admin, &old).await?.into_iter().flatten() {
        sql::execute(admin, &format!("ALTER DATABASE {name} IS_TEMPLATE false")).await?;
        sql::execute(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    }
    Ok(())
}

fn name(migrations: &str, guard: &str) -> String {
    let digest = Sha256::new().chain_update(migrations).chain_update([0]).chain_update(guard).finalize();
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("mws_template_{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_schema_or_machine_is_another_template() {
        assert_eq!(name("m", "g"), name("m", "g"));
        assert_ne!(name("m", "g"), name("m2", "g"));
        assert_ne!(name("m", "g"), name("m", "g2"));
        assert_ne!(name("mg", ""), name("m", "g"));
    }

    #[tokio::test]
    async fn databases_of_killed_tests_are_removed() {
        let server = Server::attach().await.unwrap();
        let mut admin = sql::connect(server.url()).await.unwrap();
        sql::execute(&mut admin, &format!("SELECT pg_advisory_lock({LOCK})")).await.unwrap();
        // One as old as can be, one whose name only looks like it.
        for name in ["t_1_abc", "t_1_keep_me"] {
            sql::execute(&mut admin, &format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
            sql::execute(&mut admin, &format!("CREATE DATABASE {name}")).await.unwrap();
        }
        remove_leftovers(&mut admin).await.unwrap();
        let left = "SELECT datname FROM pg_database WHERE datname LIKE 't\\_1\\_%'";
        assert_eq!(sql::column(&mut admin, left).await.unwrap(), [Some("t_1_keep_me".to_owned())]);
        sql::execute(&mut admin, "DROP DATABASE t_1_keep_me").await.unwrap();
    }
}
