//! A base URL as an operator writes it.

use std::fmt;

use url::Url;

/// An absolute `http` or `https` URL without credentials, query, fragment or trailing slash, so that a path can be
/// appended to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    text: String,
    host: String,
    origin: String,
}

impl HttpUrl {
    /// Reads a URL; none when it is not of that kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !plain {
            return None;
        }
        Some(Self {
            host: url.host_str()?.to_owned(),
            origin: url.origin().ascii_serialization(),
            text: url.as_str().trim_end_matches('/').to_owned(),
        })
    }

    /// What a container on an engine of this machine dials to reach `port` of this machine.
    #[must_use]
    pub fn of_docker_host(port: u16) -> Self {
        let origin = match port {
            80 => "http://host.docker.internal".to_owned(),
            _ => format!("http://host.docker.internal:{port}"),
        };
        Self { text: origin.clone(), host: "host.docker.internal".to_owned(), origin }
    }

    /// The URL, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host in lower case, an IPv6 address in brackets, without the port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What a browser sends as `Origin` from a page of this URL: a scheme's own port is left out.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_normalised_and_knows_its_host_and_origin() {
        let url = HttpUrl::parse("HTTPS://Team.Example:443/base/").unwrap();
        assert_eq!(url.as_str(), "https://team.example/base");
        assert_eq!((url.host(), url.origin()), ("team.example", "https://team.example"));
        let url = HttpUrl::parse("http://[::1]:8080").unwrap();
        assert_eq!((url.host(), url.origin()), ("[::1]", "http://[::1]:8080"));
        for port in [80, 8080] {
            let url = HttpUrl::of_docker_host(port);
            assert_eq!(HttpUrl::parse(url.as_str()), Some(url));
        }
        for bad in
            ["", "team.example", "ftp://a", "http://", "http://u:p@a", "http://a?b=c", "http://a#b", "/x"]
        {
            assert_eq!(HttpUrl::parse(bad), None, "{bad}");
        }
    }
}
