//! `POST /internal/chat/uploads/ingest`: files of a chat, kept in the workspace.

use std::path::Path;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::log;
use crate::server::{Reply, answer, collect, failure};

/// Where uploads are, below `/workspace`.
const FOLDER: &str = ".molecule/chat-uploads";
const MAX_BODY: usize = 50 * 1024 * 1024;
const MAX_FILE: usize = 25 * 1024 * 1024;
const MAX_FILES: usize = 50;
const MAX_NAME: usize = 100;
const BODY_WITHIN: Duration = Duration::from_secs(300);

/// One `files` field.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    name: String,
    mime_type: Option<String>,
    contents: &'a [u8],
}

pub(crate) async fn ingest(request: Request<Incoming>, workspace: &Path) -> Reply {
    let boundary =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(boundary_of);
    let Some(boundary) = boundary else {
        return failure(StatusCode::BAD_REQUEST, "expected multipart/form-data");
    };
    let body = match collect(request.into_body(), MAX_BODY, BODY_WITHIN).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Some(parts) = parse(&body, &boundary).filter(|parts| !parts.is_empty() && parts.len() <= MAX_FILES)
    else {
        return failure(StatusCode::BAD_REQUEST, "malformed upload");
    };
    if let Some(large) = parts.iter().find(|part| part.contents.len() > MAX_FILE) {
        return failure(StatusCode::PAYLOAD_TOO_LARGE, &format!("file too large: {}", large.name));
    }
    let mut stored = Vec::with_capacity(parts.len());
    for part in &parts {
        match store(part, workspace).await {
            Ok(file) => stored.push(file),
            Err(error) => {
                log::line(&format!("upload not stored: {error}"));
                return failure(StatusCode::INTERNAL_SERVER_ERROR, "upload could not be stored");
            }
        }
    }
    answer(StatusCode::OK, &json!({"files": stored}))
}

async fn store(part: &Part<'_>, workspace: &Path) -> std::io::Result<Value> {
    let folder = workspace.join(FOLDER);
    tokio::fs::create_dir_all(&folder).await?;
    let file = format!("{}-{}", Uuid::new_v4(), part.name);
    tokio::fs::write(folder.join(&file), part.contents).await?;
    let mut stored = json!({
        "uri": format!("workspace:/workspace/{FOLDER}/{file}"),
        "name": part.name,
        "size": part.contents.len(),
    });
    if let Some(mime_type) = &part.mime_type {
        stored["mimeType"] = json!(mime_type);
    }
    Ok(stored)
}

fn boundary_of(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let (_, value) = parameters
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    let value = value.trim().trim_matches('"');
    // RFC 2046: 1 to 70 characters.
    (1..=70).contains(&value.len()).then(|| value.to_owned())
}

/// The `files` fields of a multipart body; `None` when it is malformed.
fn parse<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<Part<'a>>> {
    let opening = format!("--{boundary}");
    let separator = format!("\r\n--{boundary}");
    let start = if body.starts_with(opening.as_bytes()) {
        opening.len()
    } else {
        find(body, separator.as_bytes())? + separator.len()
    };
    let mut rest = &body[start..];
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let end = find(rest, separator.as_bytes())?;
        let (part, after) = (&rest[..end], &rest[end + separator.len()..]);
        rest = after;
        let headers_end = find(part, b"\r\n\r\n")?;
        let headers = std::str::from_utf8(&part[..headers_end]).ok()?;
        if let Some((name, mime_type)) = file_field(headers) {
            parts.push(Part { name, mime_type, contents: &part[headers_end + 4..] });
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Name and type of a part, if it is a `files` field with a file in it.
fn file_field(headers: &str) -> Option<(String, Option<String>)> {
    let header = |wanted: &str| {
        headers
            .split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    let disposition = header("content-disposition")?;
    if quoted(disposition, "name")? != "files" {
        return None;
    }
    Some((safe_name(quoted(disposition, "filename")?), header("content-type").map(str::to_owned)))
}

fn quoted<'a>(disposition: &'a str, name: &str) -> Option<&'a str> {
    let start = disposition.find(&format!("; {name}=\""))? + name.len() + 4;
    disposition[start..].split('"').next()
}

/// The last path element, without what a shell or a header could misread.
fn safe_name(sent: &str) -> String {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last
        .chars()
        .map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .take(MAX_NAME)
        .collect();
    let name = name.replace("..", "_");
    if name.is_empty() || name == "." { "file".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found() {
        assert_eq!(boundary_of("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary_of("Multipart/Form-Data; charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        for bad in ["multipart/form-data", "multipart/mixed; boundary=x", "multipart/form-data; boundary="] {
            assert_eq!(boundary_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_files_are_taken() {
        // 13.3
        let body = b"preamble\r\n--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nx\r\n--b\r\n\
            Content-Disposition: form-data; name=\"files\"; filename=\"../../a b.txt\"\r\nContent-Type: text/plain\r\n\r\n\
            one\r\n--two\r\n--b\r\ncontent-disposition: form-data; name=\"files\"; filename=\"c\"\r\n\r\n\r\n--b--\r\n";
        let parts = parse(body, "b").unwrap();
        assert_eq!(
            parts,
            [
                Part {
                    name: "a_b.txt".into(),
                    mime_type: Some("text/plain".into()),
                    contents: b"one\r\n--two"
                },
                Part { name: "c".into(), mime_type: None, contents: b"" },
            ]
        );
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for bad in ["", "--b", "--b\r\n", "--bX", "--b\r\nno headers\r\n--b--", "x"] {
            assert_eq!(parse(bad.as_bytes(), "b"), None, "{bad:?}");
        }
        assert_eq!(parse(b"--b--", "b").unwrap(), []);
    }

    #[test]
    fn names_are_harmless() {
        for (sent, kept) in [
            ("report.pdf", "report.pdf"),
            ("C:\\x\\y.txt", "y.txt"),
            ("../..", "_"),
            ("", "file"),
            ("a\r\nb", "a__b"),
            ("żółw.md", "żółw.md"),
        ] {
            assert_eq!(safe_name(sent), kept, "{sent:?}");
        }
    }
}
