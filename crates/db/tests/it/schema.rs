//! What the schema and the code both say, they say alike.

use std::fs;
use std::path::{Path, PathBuf};

use mws_models::{EXTERNAL_LIKE_RUNTIMES, WorkspaceStatus};
use mws_testkit::TestDatabase;

#[tokio::test]
async fn the_schema_and_the_models_have_the_same_names() {
    let database = TestDatabase::create().await;

    // 1.R120
    let labels = database.column("SELECT unnest(enum_range(NULL::workspace_status))::text").await;
    let names: Vec<_> = WorkspaceStatus::ALL.iter().map(|status| Some(status.as_str().to_owned())).collect();
    assert_eq!(labels, names);

    let quoted = EXTERNAL_LIKE_RUNTIMES.map(|runtime| format!("'{runtime}'")).join(", ");
    let body = database.value("SELECT prosrc FROM pg_proc WHERE proname = 'is_external_like'").await;
    assert_eq!(body.as_deref().map(str::trim), Some(&*format!("SELECT runtime IN ({quoted})")));
}

/// Every `.rs` file under a `src` of the workspace.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut directories: Vec<PathBuf> = ["crates", "bins"]
        .iter()
        .flat_map(|part| fs::read_dir(root.join(part)).unwrap())
        .map(|member| member.unwrap().path().join("src"))
        .filter(|source| source.is_dir())
        .collect();
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files
}

/// The assignments and column lists of the statements that write `workspaces`, in one line each.
fn writes(source: &str) -> Vec<String> {
    let line = source.split_whitespace().collect::<Vec<_>>().join(" ");
    let clause = |start: &str, end: &str| {
        let rest = line.split(start).skip(1);
        rest.map(|rest| rest.split(end).next().unwrap_or(rest).to_owned()).collect::<Vec<_>>()
    };
    let mut found = clause("UPDATE workspaces ", " WHERE ");
    found.extend(clause("INSERT INTO workspaces (", ")"));
    found
}

/// 1.R119: an edge of the machine is taken by one module.
#[test]
fn only_the_transitions_write_a_status() {
    let writers = |files: &[(PathBuf, String)]| {
        let mut writers: Vec<String> = files
            .iter()
            .filter(|(_, text)| {
                let assigns = |write: &String| {
                    let words: Vec<&str> =
                        write.split([' ', ',', '(']).filter(|word| !word.is_empty()).collect();
                    let assigned = words.windows(2).any(|pair| pair == ["status", "="]);
                    assigned || (!write.contains("SET ") && words.contains(&"status"))
                };
                writes(text).iter().any(assigns)
            })
            .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        writers.sort();
        writers
    };
    assert_eq!(writers(&sources()), ["transitions.rs"]);

    let file = |text: &str| [(PathBuf::from("/a.rs"), text.to_owned())];
    assert_eq!(writers(&file("UPDATE workspaces w\n SET url = '',\n status = $2 WHERE id = $1")), ["a.rs"]);
    assert_eq!(writers(&file("INSERT INTO workspaces (id, status) VALUES")), ["a.rs"]);
    assert!(writers(&file("UPDATE workspaces SET url = '' WHERE status = 'online'")).is_empty());
}
