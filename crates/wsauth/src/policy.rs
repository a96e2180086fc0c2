//! The installation's settings that decisions depend on, and the rules that need nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::{Bearer, Credentials, TokenHash};

/// The class of `MOLECULE_ENV`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Environment {
    /// `production` or `prod`.
    Production,
    /// `development` or `dev`.
    Development,
    /// Anything else, also staging and none.
    #[default]
    Other,
}

/// `ADMIN_TOKEN`, kept as a digest: comparing needs no more, and nothing can leak it.
#[derive(Clone, Copy)]
pub struct AdminToken(TokenHash);

impl AdminToken {
    /// The configured token without surrounding whitespace; `None` when nothing is left (5 §0).
    #[must_use]
    pub fn new(configured: &str) -> Option<Self> {
        let token = configured.trim();
        (!token.is_empty()).then(|| Self(TokenHash::of(token)))
    }

    fn matches(&self, bearer: &TokenHash) -> bool {
        self.0.constant_time_eq(bearer)
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The settings, read once at boot. The default is closed and knows no admin.
#[derive(Debug, Clone, Default)]
pub struct AuthPolicy {
    /// `ADMIN_TOKEN`, if set.
    pub admin_token: Option<AdminToken>,
    /// The class of `MOLECULE_ENV`.
    pub environment: Environment,
    /// `MOLECULE_BOOTSTRAP_OPEN=1`: a fresh production install is open, too (5.R83).
    pub bootstrap_open: bool,
    /// Host names that count as local besides the built-in ones: those of `PLATFORM_URL`,
    /// `EXTERNAL_PLATFORM_URL` and `MOLECULE_ALLOWED_HOSTS`, without port (5.R82).
    pub local_hosts: Vec<String>,
    /// The origins of 5.R95, as `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// `A2A_REQUIRE_CALLER_AUTH`: no anonymous callers at the proxy (4.R17).
    pub require_caller_auth: bool,
}

impl AuthPolicy {
    /// Whether this is a developer's server that asks for nothing: development **and** no `ADMIN_TOKEN`. Where
    /// it matters, the request must also come from nearby: [`AuthPolicy::open_tier_allowed`].
    #[must_use]
    pub const fn dev_open(&self) -> bool {
        self.admin_token.is_none() && matches!(self.environment, Environment::Development)
    }

    /// Whether the open tiers apply to this request: a peer nearby **and** a local `Host` (5.R82). The first
    /// keeps the internet out, the second a web page that had its own name resolve to this machine.
    #[must_use]
    pub fn open_tier_allowed(&self, credentials: &Credentials<'_>) -> bool {
        is_local_peer(credentials.peer) && credentials.host.is_some_and(|host| self.is_local_host(host))
    }

    pub(crate) fn is_admin(&self, bearer: Bearer<'_>) -> bool {
        self.admin_token.is_some_and(|admin| admin.matches(&bearer.into()))
    }

    pub(crate) const fn bootstrap_permitted(&self) -> bool {
        self.admin_token.is_none()
            && (!matches!(self.environment, Environment::Production) || self.bootstrap_open)
    }

    fn is_local_host(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        !name.contains('.') // `localhost` and every other single label; bracketed IPv6
            || literal.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("host.docker.internal")
            || self.local_hosts.iter().any(|local| local.eq_ignore_ascii_case(name))
    }
}

/// The name in a `Host` header, without its port: a DNS name, an IPv4 address, or an IPv6 address in brackets.
/// `None` when the header is none of these.
#[must_use]
pub fn host_name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            rest.get(..end)?.parse::<Ipv6Addr>().ok()?;
            host.split_at(end + 2)
        }
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
            (!name.is_empty() && name.bytes().all(valid)).then_some((name, port))?
        }
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    (port.is_empty() || port.starts_with(':') && digits.bytes().all(|c| c.is_ascii_digit())).then_some(name)
}

/// Whether an address is loopback, private (RFC 1918, `fc00::/7`) or link-local; an IPv4 address mapped into
/// IPv6 is judged as IPv4.
#[must_use]
pub fn is_local_peer(peer: IpAddr) -> bool {
    match peer.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether a WebSocket client's `Origin` is in the list, letter case aside, or is the very host that it talks
/// to (3.R116).
#[must_use]
pub fn origin_allowed(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    let same_host = || {
        let Some(host) = host.filter(|host| !host.is_empty()) else { return false };
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
            && authority.eq_ignore_ascii_case(host)
    };
    !origin.is_empty() && (allowed.iter().any(|one| one.eq_ignore_ascii_case(origin)) || same_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(peer: &str, host: Option<&str>) -> bool {
        let policy = AuthPolicy {
            local_hosts: vec!["platform.example.com".into(), "ext.example.com".into()],
            ..AuthPolicy::default()
        };
        policy.open_tier_allowed(&Credentials {
            bearer: None,
            origin: None,
            host,
            peer: peer.parse().unwrap(),
            claimed_workspace: None,
        })
    }

    #[test]
    fn open_tiers_need_a_peer_nearby() {
        // 5.R82
        for peer in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "fe80::1",
            "fc00::1",
            "fdff::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
        ] {
            assert!(near(peer, Some("localhost")), "{peer}");
        }
        for peer in [
            "8.8.8.8",
            "172.15.255.255",
            "172.32.0.1",
            "192.169.0.1",
            "11.0.0.1",
            "0.0.0.0",
            "100.64.0.1",
            "2001:db8::1",
            "::",
            "fec0::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!near(peer, Some("localhost")), "{peer}");
        }
    }

    #[test]
    fn open_tiers_need_a_local_host() {
        // 5.R82
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost:",
            "127.0.0.1:8080",
            "203.0.113.7",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::1]:443",
            "mws",
            "ws-server_1:8080",
            "host.docker.internal:8080",
            "Host.Docker.Internal",
            "platform.example.com",
            "PLATFORM.example.com:8443",
            "ext.example.com",
        ] {
            assert!(near("127.0.0.1", Some(host)), "{host}");
        }
        for host in [
            "",
            ":8080",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "localhost.",
            "evil.",
            "x.platform.example.com",
            "platform.example.com.evil.example",
            "127.0.0.1.evil.example",
            "[::1]evil.example",
            "[::1",
            "[evil]",
            "[]",
            "user@localhost",
            "localhost:80:80",
            "localhost:8o",
            "localhost/evil.example",
            "127.0.0.1:80@evil.example",
            "evil example",
            "::1",
            "256.1.1.1",
        ] {
            assert!(!near("127.0.0.1", Some(host)), "{host:?}");
        }
        assert!(!near("127.0.0.1", None));
    }

    #[test]
    fn dev_open_needs_both_conditions() {
        // 5 §0, 5.R214, 5.T8
        let token = AdminToken::new("secret");
        for (environment, admin_token, open) in [
            (Environment::Development, None, true),
            (Environment::Development, token, false),
            (Environment::Production, None, false),
            (Environment::Other, None, false),
        ] {
            let policy = AuthPolicy { environment, admin_token, ..AuthPolicy::default() };
            assert_eq!(policy.dev_open(), open, "{policy:?}");
        }
    }

    #[test]
    fn an_empty_admin_token_is_none_and_a_set_one_is_hidden() {
        // 5 §0, 5.R3
        assert!(AdminToken::new("").is_none());
        assert!(AdminToken::new(" \n").is_none());
        let policy = AuthPolicy { admin_token: AdminToken::new(" secret\n"), ..AuthPolicy::default() };
        assert!(policy.is_admin(Bearer::from_header(b"Bearer secret").unwrap()));
        assert!(!policy.is_admin(Bearer::from_header(b"Bearer secre").unwrap()));
        assert!(!AuthPolicy::default().is_admin(Bearer::from_header(b"Bearer x").unwrap()));
        assert!(!format!("{policy:?}").contains("secret"));
    }

    #[test]
    fn origins_are_ours_or_the_hosts() {
        // 3.R116, 5.R95
        let allowed = ["http://localhost:3000".to_owned(), "https://Canvas.example.com".to_owned()];
        let table = [
            ("http://localhost:3000", Some("h.example.com"), true),
            ("HTTP://LOCALHOST:3000", None, true),
            ("https://canvas.EXAMPLE.com", None, true),
            ("http://canvas.example.com", None, false),
            ("http://localhost:3001", None, false),
            ("http://h.example.com:8080", Some("h.example.com:8080"), true),
            ("https://H.example.com", Some("h.example.com"), true),
            ("https://h.example.com.evil.com", Some("h.example.com"), false),
            ("https://h.example.com/", Some("h.example.com"), false),
            ("ftp://h.example.com", Some("h.example.com"), false),
            ("https://", Some(""), false),
            ("https://", None, false),
            ("null", Some("h.example.com"), false),
            ("", Some("h.example.com"), false),
        ];
        for (origin, host, expected) in table {
            assert_eq!(origin_allowed(origin, host, &allowed), expected, "{origin} at {host:?}");
        }
    }
}
