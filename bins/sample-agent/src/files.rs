//! `GET /internal/file/read?path=`: one file's bytes, streamed.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, Take};

use crate::boot::Settings;
use crate::credentials::{AUTH_TOKEN, INBOUND_SECRET};
use crate::server::{Reply, failure};

const CHUNK: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Missing,
    NotAbsolute,
    OutsideRoots,
    Invalid,
}

impl Refusal {
    const fn text(&self) -> &'static str {
        match self {
            Self::Missing => "path query required",
            Self::NotAbsolute => "path must be absolute",
            Self::OutsideRoots => "path must be under /configs, /workspace, /home, or /plugins",
            Self::Invalid => "invalid path",
        }
    }
}

pub(crate) async fn read(query: &str, settings: &Settings) -> Reply {
    let wanted = query_value(query, "path").unwrap_or_default();
    let (root, rest) = match split(&wanted) {
        Ok(parts) => parts,
        Err(refusal) => return failure(StatusCode::BAD_REQUEST, refusal.text()),
    };
    let root = match root {
        "/configs" => settings.configs.clone(),
        "/workspace" => settings.workspace.clone(),
        other => PathBuf::from(other),
    };
    if root == settings.configs && [AUTH_TOKEN, INBOUND_SECRET].contains(&rest) {
        return failure(StatusCode::NOT_FOUND, "file not found");
    }
    match open(&root, rest).await {
        Ok((file, size)) => stream(file, size),
        Err(_) => failure(StatusCode::NOT_FOUND, "file not found"),
    }
}

/// The root and what is below it.
fn split(path: &str) -> Result<(&'static str, &str), Refusal> {
    const ROOTS: [&str; 4] = ["/configs", "/workspace", "/home", "/plugins"];
    if path.is_empty() {
        return Err(Refusal::Missing);
    }
    if !path.starts_with('/') {
        return Err(Refusal::NotAbsolute);
    }
    let (root, rest) = ROOTS
        .into_iter()
        .find_map(|root| {
            let rest = path.strip_prefix(root)?;
            if rest.is_empty() { Some((root, "")) } else { Some((root, rest.strip_prefix('/')?)) }
        })
        .ok_or(Refusal::OutsideRoots)?;
    let clean = rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !clean || path.ends_with('/') || path.contains("..") || path.contains('\0') {
        return Err(Refusal::Invalid);
    }
    Ok((root, rest))
}

/// A regular file with no symbolic link on the way to it.
async fn open(root: &Path, rest: &str) -> io::Result<(File, u64)> {
    let root = tokio::fs::canonicalize(root).await?;
    let path = root.join(rest);
    if tokio::fs::canonicalize(&path).await? != path {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(&path).await?;
    let metadata = file.metadata().await?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn stream(file: File, size: u64) -> Reply {
    let mut response = Response::new(FileBody { file: file.take(size), left: size }.boxed());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    response
}

/// A file in chunks; what is appended meanwhile stays out, what is cut off meanwhile breaks the answer.
struct FileBody {
    file: Take<File>,
    left: u64,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = vec![0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        if let Err(error) = ready!(Pin::new(&mut self.file).poll_read(context, &mut buffer)) {
            return Poll::Ready(Some(Err(error)));
        }
        let read = buffer.filled().len();
        if read == 0 {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        chunk.truncate(read);
        self.left = self.left.saturating_sub(read as u64);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(chunk)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The first value of a query parameter, percent-decoded. `None` when absent or not UTF-8.
fn query_value(query: &str, name: &str) -> Option<String> {
    let raw = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit =
                    |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(rest.next())? << 4 | digit(rest.next())?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_paths_under_the_roots() {
        // 13.3
        assert_eq!(split("/workspace/a/b.txt"), Ok(("/workspace", "a/b.txt")));
        assert_eq!(split("/configs"), Ok(("/configs", "")));
        for (path, refusal) in [
            ("", Refusal::Missing),
            ("configs/x", Refusal::NotAbsolute),
            ("/etc/passwd", Refusal::OutsideRoots),
            ("/configs2/x", Refusal::OutsideRoots),
            ("/configs/../etc/passwd", Refusal::Invalid),
            ("/configs/./x", Refusal::Invalid),
            ("/configs//x", Refusal::Invalid),
            ("/configs/x/", Refusal::Invalid),
            ("/configs/a..b", Refusal::Invalid),
            ("/configs/a\0b", Refusal::Invalid),
        ] {
            assert_eq!(split(path), Err(refusal), "{path:?}");
        }
    }

    #[test]
    fn query_values_are_decoded() {
        assert_eq!(query_value("a=1&path=%2Fconfigs%2Fa+b", "path").as_deref(), Some("/configs/a b"));
        assert_eq!(query_value("path=%zz", "path"), None);
        assert_eq!(query_value("path=%ff", "path"), None);
        assert_eq!(query_value("", "path"), None);
    }

    #[tokio::test]
    async fn links_are_not_followed() {
        // 13.3
        let folder = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(folder.join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("sub/file", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("sub", folder.join("door")).unwrap();
        assert!(open(&folder, "sub/file").await.is_ok());
        for closed in ["link", "door/file", "sub", "absent"] {
            assert!(open(&folder, closed).await.is_err(), "{closed}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
