//! Which addresses an agent may live at.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of address that a refused URL leads to. Its text is safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockedAddress {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and fd00::/8.
    Private,
    /// 169.254.0.0/16 and fe80::/10, the home of cloud metadata services.
    LinkLocal,
    /// 0.0.0.0/8 and ::.
    Unspecified,
    /// 100.64.0.0/10, carrier-grade NAT.
    Shared,
    /// 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 and 2001:db8::/32.
    Documentation,
    /// 192.0.0.0/24, 198.18.0.0/15, 240.0.0.0/4, fc00::/8 and fec0::/10.
    Reserved,
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// A well-known name of a cloud metadata service.
    Metadata,
    /// The address that the platform itself listens on.
    Platform,
}

impl fmt::Display for BlockedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback address",
            Self::Private => "private address",
            Self::LinkLocal => "link-local address",
            Self::Unspecified => "unspecified address",
            Self::Shared => "shared address",
            Self::Documentation => "documentation address",
            Self::Reserved => "reserved address",
            Self::Multicast => "multicast address",
            Self::Metadata => "metadata service",
            Self::Platform => "the platform's own address",
        })
    }
}

/// The address that decides: the IPv4 address inside an IPv4-mapped, IPv4-compatible, NAT64 or 6to4 one, else
/// the address itself. `::` and `::1` are themselves.
pub(crate) fn effective(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if address.is_unspecified() || address.is_loopback() {
        return None;
    }
    let last = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => last(high, low),
        [0x2002, high, low, ..] => last(high, low),
        _ => None,
    }
}

/// The row of the address table that an [`effective`] address falls into; `None` is the public rest.
pub(crate) fn classify(address: IpAddr) -> Option<BlockedAddress> {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> Option<BlockedAddress> {
    Some(match address.octets() {
        [0, ..] => BlockedAddress::Unspecified,
        [127, ..] => BlockedAddress::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => BlockedAddress::Private,
        [169, 254, ..] => BlockedAddress::LinkLocal,
        [100, 64..=127, ..] => BlockedAddress::Shared,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => BlockedAddress::Documentation,
        [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => BlockedAddress::Reserved,
        [224..=239, ..] => BlockedAddress::Multicast,
        _ => return None,
    })
}

fn classify_v6(address: Ipv6Addr) -> Option<BlockedAddress> {
    if address.is_unspecified() {
        return Some(BlockedAddress::Unspecified);
    }
    if address.is_loopback() {
        return Some(BlockedAddress::Loopback);
    }
    Some(match address.segments() {
        [0xfe80..=0xfebf, ..] => BlockedAddress::LinkLocal,
        [0xfec0..=0xfeff, ..] | [0xfc00..=0xfcff, ..] => BlockedAddress::Reserved,
        [0xfd00..=0xfdff, ..] => BlockedAddress::Private,
        [0xff00..=0xffff, ..] => BlockedAddress::Multicast,
        [0x2001, 0x0db8, ..] => BlockedAddress::Documentation,
        _ => return None,
    })
}
