//! The guard over every URL that an agent reported.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use url::{Host, ParseError, Url};

use crate::address::{BlockedAddress, classify, effective};
use crate::resolve::{RESOLVE_DEADLINE, Resolve, SystemResolver};

/// Longest accepted URL, in characters as given (5.R161).
pub const MAX_URL_CHARS: usize = 2048;

/// How long a list of the machine's own addresses is believed.
const INTERFACES_TTL: Duration = Duration::from_secs(10);

const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "metadata.azure.com"];
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// What the deployment allows agents. With both set, the allowances add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardMode {
    /// Agents may live in private networks (`MOLECULE_DEPLOY_MODE`).
    pub saas: bool,
    /// Agents may live in private networks and on this machine (`MOLECULE_ENV`).
    pub development: bool,
}

/// Who made a URL. Never inferred from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The agent, or whoever registered it.
    Reported,
    /// The platform's own container backend: loopback and private addresses are allowed in every mode (5.R168).
    PlatformProvisioned,
}

/// Why a URL is not dialled. Its text is safe to show: it names the category, no address and no resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Empty.
    #[error("url is required")]
    Missing,
    /// Longer than [`MAX_URL_CHARS`].
    #[error("url is too long")]
    TooLong,
    /// Not a URL.
    #[error("url is not valid")]
    Malformed,
    /// Another scheme, or none.
    #[error("url scheme must be http or https")]
    Scheme,
    /// No host.
    #[error("url must name a host")]
    NoHost,
    /// A user name or a password.
    #[error("url must not contain a user name or password")]
    UserInfo,
    /// An IPv6 address with a zone.
    #[error("url must not contain an IPv6 zone id")]
    ZoneId,
    /// No answer, or no address, within [`RESOLVE_DEADLINE`].
    #[error("url host cannot be resolved")]
    Unresolvable,
    /// A host that is refused, or a name with at least one address that is.
    #[error("url targets a blocked address: {0}")]
    Blocked(BlockedAddress),
}

/// Judges agents' URLs. Cheap to clone.
#[derive(Clone)]
pub struct AgentGuard {
    inner: Arc<Inner>,
}

struct Inner {
    mode: GuardMode,
    own_port: u16,
    resolver: Box<dyn Resolve>,
    interfaces: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

/// What the host of a URL is, before any lookup.
enum Target<'a> {
    Address(IpAddr),
    Localhost,
    Name(&'a str),
}

impl AgentGuard {
    /// A guard on the system's resolver. `own_port` is the port that this server listens on: that port on
    /// loopback or on an interface of this machine is never an agent (5.R167).
    #[must_use]
    pub fn new(mode: GuardMode, own_port: u16) -> Self {
        Self::with_resolver(mode, own_port, SystemResolver::default())
    }

    /// As [`AgentGuard::new`], on another resolver.
    #[must_use]
    pub fn with_resolver(mode: GuardMode, own_port: u16, resolver: impl Resolve) -> Self {
        let resolver = Box::new(resolver);
        Self { inner: Arc::new(Inner { mode, own_port, resolver, interfaces: Mutex::new(None) }) }
    }

    /// Judges a URL that is about to be stored. The name `localhost` is accepted in every mode without a lookup;
    /// all else is judged as at dispatch (5.R160). May be cancelled.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub async fn check_registration(&self, text: &str) -> Result<Url, Refusal> {
        let url = parse(text)?;
        match target(&url)? {
            Target::Localhost if port(&url) == self.inner.own_port => {
                return Err(Refusal::Blocked(BlockedAddress::Platform));
            }
            Target::Localhost => {}
            Target::Address(_) | Target::Name(_) => {
                self.vet(&url, Trust::Reported).await?;
            }
        }
        Ok(url)
    }

    /// Judges a URL that is about to be dialled or handed out, and returns the addresses that may be dialled.
    /// The name `localhost` counts as loopback, without a lookup. May be cancelled.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub async fn check_dispatch(&self, text: &str, trust: Trust) -> Result<(Url, Vec<SocketAddr>), Refusal> {
        let url = parse(text)?;
        let addresses = self.vet(&url, trust).await?;
        Ok((url, addresses))
    }

    /// The part of [`AgentGuard::check_dispatch`] that needs no lookup, on a parsed URL: scheme, host and
    /// literal addresses. A name passes here and is judged while connecting.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub fn check_literal(&self, url: &Url, trust: Trust) -> Result<(), Refusal> {
        let addresses: &[IpAddr] = match target(url)? {
            Target::Name(_) => return Ok(()),
            Target::Localhost => &LOOPBACK,
            Target::Address(address) => &[address],
        };
        addresses.iter().try_for_each(|address| self.judge(*address, port(url), trust))
    }

    /// The addresses of a URL, each of them judged.
    pub(crate) async fn vet(&self, url: &Url, trust: Trust) -> Result<Vec<SocketAddr>, Refusal> {
        let addresses = match target(url)? {
            Target::Address(address) => vec![address],
            Target::Localhost => LOOPBACK.to_vec(),
            Target::Name(name) => match timeout(RESOLVE_DEADLINE, self.inner.resolver.resolve(name)).await {
                Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
                Ok(_) | Err(_) => return Err(Refusal::Unresolvable),
            },
        };
        let port = port(url);
        addresses
            .into_iter()
            .map(|address| self.judge(address, port, trust).map(|()| SocketAddr::new(address, port)))
            .collect()
    }

    fn judge(&self, address: IpAddr, port: u16, trust: Trust) -> Result<(), Refusal> {
        let address = effective(address);
        let category = classify(address);
        let mode = self.inner.mode;
        let provisioned = trust == Trust::PlatformProvisioned;
        let allowed = match category {
            None => true,
            Some(BlockedAddress::Loopback) => mode.development || provisioned,
            Some(BlockedAddress::Private) => mode.development || mode.saas || provisioned,
            Some(_) => false,
        };
        if let Some(category) = category
            && !allowed
        {
            return Err(Refusal::Blocked(category));
        }
        let own = port == self.inner.own_port
            && (category == Some(BlockedAddress::Loopback) || self.is_own_interface(address));
        if own { Err(Refusal::Blocked(BlockedAddress::Platform)) } else { Ok(()) }
    }

    /// Whether an interface of this machine has the address; also when the interfaces cannot be listed, because
    /// then nothing can be excluded.
    fn is_own_interface(&self, address: IpAddr) -> bool {
        let mut known = self.inner.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.as_ref().is_some_and(|(listed, _)| listed.elapsed() < INTERFACES_TTL);
        if !fresh {
            *known = interface_addresses().map(|addresses| (Instant::now(), addresses));
        }
        known.as_ref().is_none_or(|(_, addresses)| addresses.contains(&address))
    }
}

fn interface_addresses() -> Option<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Some(interfaces.filter_map(address).collect())
}

fn parse(text: &str) -> Result<Url, Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::Missing);
    }
    // Counting is only needed when the bytes do not already fit.
    if text.len() > MAX_URL_CHARS && text.chars().nth(MAX_URL_CHARS).is_some() {
        return Err(Refusal::TooLong);
    }
    Url::parse(text).map_err(|error| match error {
        ParseError::RelativeUrlWithoutBase => Refusal::Scheme,
        ParseError::EmptyHost => Refusal::NoHost,
        ParseError::InvalidIpv6Address if has_zone_id(text) => Refusal::ZoneId,
        _ => Refusal::Malformed,
    })
}

fn has_zone_id(text: &str) -> bool {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.is_some_and(|(address, _)| address.contains('%'))
}

/// The syntax rules that survive parsing, and the host.
fn target(url: &Url) -> Result<Target<'_>, Refusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::UserInfo);
    }
    match url.host().ok_or(Refusal::NoHost)? {
        Host::Ipv4(address) => Ok(Target::Address(address.into())),
        Host::Ipv6(address) => Ok(Target::Address(address.into())),
        // The parser has lower-cased the name.
        Host::Domain(name) => match name.trim_end_matches('.') {
            "" => Err(Refusal::NoHost),
            "localhost" => Ok(Target::Localhost),
            bare if METADATA_NAMES.contains(&bare) => Err(Refusal::Blocked(BlockedAddress::Metadata)),
            _ => Ok(Target::Name(name)),
        },
    }
}

/// The port that is dialled. Both schemes that pass [`target`] have a default.
fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or_default()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
