//! The `.sqlx` folder: what the compiler learnt about every query from a migrated database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::install::{self, Need};
use crate::postgres::Throwaway;
use crate::steps;

type Folder = BTreeMap<String, Vec<u8>>;

/// Fails when the committed folder differs from what the queries and migrations of this tree give.
pub(crate) fn check() -> Result<(), String> {
    let fresh = generate()?;
    let committed = read(&steps::root().join(".sqlx"))?;
    let differences = differences(&committed, &fresh);
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!(".sqlx is stale; run `cargo xtask sqlx-prepare` and commit it\n{}", differences.join("\n")))
}

pub(crate) fn prepare(no_install: bool) -> Result<(), String> {
    install::ensure(&[Need::Postgres], no_install)?;
    steps::step("Write .sqlx", || {
        let fresh = generate()?;
        let folder = steps::root().join(".sqlx");
        let at = |error| format!("cannot write {}: {error}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(at)?;
        }
        fs::create_dir_all(&folder).map_err(at)?;
        for (name, content) in &fresh {
            fs::write(folder.join(name), content).map_err(at)?;
        }
        steps::say(format_args!("    {} queries", fresh.len()));
        Ok(())
    })
}

/// Compiles the one crate with SQL against a throwaway database, collecting what the macros write.
fn generate() -> Result<Folder, String> {
    let collected = steps::root().join("target/sqlx");
    let at = |error| format!("cannot make {}: {error}", collected.display());
    if collected.exists() {
        fs::remove_dir_all(&collected).map_err(at)?;
    }
    fs::create_dir_all(&collected).map_err(at)?;

    let postgres = Throwaway::start()?;
    postgres.migrate()?;
    // The macros run only when the crate is compiled again.
    steps::checked(Command::new("touch").arg(steps::root().join("crates/db/src/lib.rs")))?;
    steps::checked(
        steps::cargo(["check", "--locked", "--package", "mws-db", "--all-targets"])
            .env("SQLX_OFFLINE", "false")
            .env("SQLX_OFFLINE_DIR", &collected)
            .env("DATABASE_URL", postgres.url()),
    )?;
    read(&collected)
}

fn read(folder: &Path) -> Result<Folder, String> {
    let at = |error| format!("cannot read {}: {error}", folder.display());
    let mut files = Folder::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(name) = path.file_name()
        {
            files.insert(name.to_string_lossy().into_owned(), fs::read(&path).map_err(at)?);
        }
    }
    Ok(files)
}

fn differences(committed: &Folder, fresh: &Folder) -> Vec<String> {
    let names: BTreeSet<&String> = committed.keys().chain(fresh.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (committed.get(name), fresh.get(name)) {
            (Some(_), None) => Some(format!("  no query for it any more: {name}")),
            (None, Some(_)) => Some(format!("  missing: {name}")),
            (Some(old), Some(new)) if old != new => Some(format!("  changed: {name}")),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_named() {
        let folder = |files: &[(&str, &str)]| {
            files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
                .collect::<Folder>()
        };
        let committed = folder(&[("gone", "1"), ("same", "1"), ("other", "1")]);
        let fresh = folder(&[("same", "1"), ("other", "2"), ("new", "1")]);
        assert_eq!(
            differences(&committed, &fresh),
            ["  no query for it any more: gone", "  missing: new", "  changed: other"]
        );
        assert!(differences(&fresh, &fresh).is_empty());
    }
}
