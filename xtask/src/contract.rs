//! `contract`: which rules of docs/contract a test cites. A rule is cited by its number in a comment of a Rust
//! file that holds tests, as in `// 2.R43`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::steps;

/// Area and number: 2.R43 is (2, 43).
type Rule = (u8, u16);

pub(crate) fn report(only: Option<u8>) -> Result<(), String> {
    let root = steps::root();
    let mut cited = BTreeSet::new();
    for folder in ["crates", "bins", "xtask"] {
        for file in files(&root.join(folder), "rs")? {
            let text = read(&file)?;
            if holds_tests(&file, &text) {
                cited.extend(text.lines().filter_map(comment).flat_map(mentions));
            }
        }
    }

    let mut out = io::stdout().lock();
    let mut print = |text: String| writeln!(out, "{text}").map_err(|error| error.to_string());
    let mut known = BTreeSet::new();
    for file in files(&root.join("docs/contract"), "md")? {
        let Some(area) = area_of(&file) else { continue };
        let rules = definitions(area, &read(&file)?);
        if only.is_none_or(|wanted| wanted == area) {
            let untested: Vec<String> =
                rules.difference(&cited).map(|(_, number)| format!("R{number}")).collect();
            let tested = rules.len() - untested.len();
            print(format!(
                "area {area}: {} rules, {tested} cited by a test, {} not",
                rules.len(),
                untested.len()
            ))?;
            for line in untested.chunks(16) {
                print(format!("  {}", line.join(" ")))?;
            }
        }
        known.extend(rules);
    }

    let unknown: Vec<String> = cited
        .difference(&known)
        .filter(|(area, _)| only.is_none_or(|wanted| wanted == *area))
        .map(|(area, number)| format!("{area}.R{number}"))
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(format!("tests cite rules that the contract does not have: {}", unknown.join(", ")))
    }
}

/// A rule is defined where its number opens a line or a list item, or is set in bold.
fn definitions(area: u8, text: &str) -> BTreeSet<Rule> {
    let bold = format!("**{area}.R");
    let mut rules = BTreeSet::new();
    for line in text.lines() {
        let opening = line.strip_prefix("- ").unwrap_or(line);
        let opening = opening.strip_prefix("**").unwrap_or(opening);
        rules.extend(rule_at(opening));
        rules.extend(line.match_indices(&bold).filter_map(|(at, _)| rule_at(&line[at + 2..])));
    }
    rules.retain(|(of, _)| *of == area);
    rules
}

fn mentions(text: &str) -> Vec<Rule> {
    text.char_indices()
        .filter(|(at, character)| {
            character.is_ascii_digit()
                && !text[..*at].ends_with(|before: char| before.is_ascii_alphanumeric())
        })
        .filter_map(|(at, _)| rule_at(&text[at..]))
        .collect()
}

/// The rule whose number `text` begins with.
fn rule_at(text: &str) -> Option<Rule> {
    let (area, rest) = text.split_once(".R")?;
    if area.len() != 1 {
        return None;
    }
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    Some((area.parse().ok()?, rest[..end].parse().ok()?))
}

fn comment(line: &str) -> Option<&str> {
    line.split_once("//").map(|(_, comment)| comment)
}

fn holds_tests(file: &Path, text: &str) -> bool {
    file.components().any(|part| part.as_os_str() == "tests")
        || ["#[test]", "#[tokio::test", "#[cfg(test)]", "proptest!"].iter().any(|mark| text.contains(mark))
}

fn area_of(file: &Path) -> Option<u8> {
    let (number, _) = file.file_name()?.to_str()?.split_once('-')?;
    number.parse().ok().filter(|area| *area != 0)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let at = |error| format!("cannot read {}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        let path = entry.path();
        if entry.file_type().map_err(at)?.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_defined_where_its_number_opens_or_is_bold() {
        let text =
            "- **3.R1** one, see 3.R9\n3.R2 two\n- 3.R3 three\n`{}` **3.R45** inside\n2.R7 of another area\n";
        assert_eq!(definitions(3, text), BTreeSet::from([(3, 1), (3, 2), (3, 3), (3, 45)]));
    }

    #[test]
    fn citations_are_found_in_comments_only() {
        assert_eq!(comment("let url = 1; // 2.R43, 4.R1").map(mentions), Some(vec![(2, 43), (4, 1)]));
        assert_eq!(comment("let version = \"1.R2\";"), None);
        assert_eq!(mentions("see v2.R3, 12.R4 and 1.Rx"), []);
    }

    #[test]
    fn every_area_of_the_contract_is_read() {
        for file in files(&steps::root().join("docs/contract"), "md").unwrap() {
            if let Some(area) = area_of(&file) {
                let rules = definitions(area, &read(&file).unwrap());
                assert!(rules.len() > 100, "{} has {} rules", file.display(), rules.len());
            }
        }
    }
}
