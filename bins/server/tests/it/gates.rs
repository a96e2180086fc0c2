//! What the compiler cannot check about the sources.

use std::fs;
use std::path::{Path, PathBuf};

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

/// Functions that start an agent without having minted its credentials.
fn unminted_starts(files: &[(PathBuf, String)]) -> Vec<String> {
    let backends = |(path, text): &&(PathBuf, String)| {
        text.contains("Provisioner") && !path.components().any(|part| part.as_os_str() == "provisioner")
    };
    let mut found = Vec::new();
    for (path, text) in files.iter().filter(backends) {
        for function in text.split("fn ").skip(1) {
            let minted = function.find("mint_credentials(");
            if function.find(".start(").is_some_and(|start| minted.is_none_or(|minted| minted > start)) {
                let name = function.split(['(', '<']).next().unwrap_or(function);
                found.push(format!("{}: {name}", path.file_name().unwrap().to_string_lossy()));
            }
        }
    }
    found
}

/// 2.R105: no path forgets the credentials.
#[test]
fn every_start_mints_first() {
    let files = sources();
    assert_eq!(unminted_starts(&files), [""; 0]);
    let starts =
        |(_, text): &(PathBuf, String)| text.contains("Provisioner") && text.contains("backend.start(");
    assert!(files.iter().any(starts), "the gate looks for what is not there");

    let file = |body: &str| {
        let text = format!("use mws_provisioner::Provisioner; fn wake() {{ {body} }}");
        [(PathBuf::from("/a.rs"), text)]
    };
    assert_eq!(unminted_starts(&file("backend.start(spec).await")), ["a.rs: wake"]);
    assert_eq!(unminted_starts(&file("backend.start(spec).await; mint_credentials(id)")), ["a.rs: wake"]);
    assert!(unminted_starts(&file("mint_credentials(id); backend.start(spec).await")).is_empty());
}
