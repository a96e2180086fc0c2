use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;

const OWN_PORT: u16 = 8080;

const STRICT: GuardMode = GuardMode { saas: false, development: false };
const SAAS: GuardMode = GuardMode { saas: true, development: false };
const DEVELOPMENT: GuardMode = GuardMode { saas: false, development: true };
const SAAS_DEVELOPMENT: GuardMode = GuardMode { saas: true, development: true };
const MODES: [GuardMode; 4] = [STRICT, SAAS, DEVELOPMENT, SAAS_DEVELOPMENT];

/// Answers every name the same way, and counts.
#[derive(Clone)]
struct Fixed {
    answer: Option<Vec<IpAddr>>,
    lookups: Arc<AtomicUsize>,
}

impl Fixed {
    fn new(answer: &[&str]) -> Self {
        let answer = answer.iter().map(|address| address.parse().unwrap()).collect();
        Self { answer: Some(answer), lookups: Arc::default() }
    }

    fn failing() -> Self {
        Self { answer: None, lookups: Arc::default() }
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Resolve for Fixed {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        self.answer.clone().ok_or_else(|| io::Error::other("resolver.internal.example said no"))
    }
}

fn guard(mode: GuardMode) -> AgentGuard {
    AgentGuard::with_resolver(mode, OWN_PORT, Fixed::failing())
}

fn url_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("http://{v4}:9000/"),
        IpAddr::V6(v6) => format!("http://[{v6}]:9000/"),
    }
}

/// The verdict, asserting that registration, both kinds of dispatch check and a name with this address agree.
async fn verdict(mode: GuardMode, address: IpAddr) -> Result<(), Refusal> {
    let text = url_of(address);
    let guard = guard(mode);
    let registration = guard.check_registration(&text).await;
    let dispatch = guard.check_dispatch(&text, Trust::Reported).await;
    let literal = guard.check_literal(&Url::parse(&text).unwrap(), Trust::Reported);
    assert_eq!(registration.clone().map(drop), literal, "{text}");
    assert_eq!(dispatch.map(drop), literal, "{text}");

    let resolver = Fixed { answer: Some(vec![address]), lookups: Arc::default() };
    let named = AgentGuard::with_resolver(mode, OWN_PORT, resolver);
    assert_eq!(named.check_registration("http://agent.example:9000/").await.map(drop), literal, "{text}");
    literal
}

/// The columns in which a row is allowed.
#[derive(Clone, Copy, PartialEq)]
enum Row {
    Development,
    SaasAndDevelopment,
    Never,
    Always,
}

impl Row {
    fn allows(self, mode: GuardMode) -> bool {
        match self {
            Self::Development => mode.development,
            Self::SaasAndDevelopment => mode.development || mode.saas,
            Self::Never => false,
            Self::Always => true,
        }
    }
}

/// First and last address of each range, and the neighbours on either side.
const TABLE: &[(&[&str], Row, Option<BlockedAddress>)] = &[
    (&["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"], Row::Development, Some(BlockedAddress::Loopback)),
    (
        &[
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "fd00::",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ],
        Row::SaasAndDevelopment,
        Some(BlockedAddress::Private),
    ),
    (&["0.0.0.0", "0.255.255.255", "::"], Row::Never, Some(BlockedAddress::Unspecified)),
    (
        &["169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::", "febf::1"],
        Row::Never,
        Some(BlockedAddress::LinkLocal),
    ),
    (&["100.64.0.0", "100.127.255.255"], Row::Never, Some(BlockedAddress::Shared)),
    (
        &["192.0.2.0", "192.0.2.255", "198.51.100.7", "203.0.113.255", "2001:db8::", "2001:db8:ffff::1"],
        Row::Never,
        Some(BlockedAddress::Documentation),
    ),
    (
        &[
            "192.0.0.0",
            "192.0.0.255",
            "198.18.0.0",
            "198.19.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
            "fc00::",
            "fcff:ffff::1",
            "fec0::",
            "feff::1",
        ],
        Row::Never,
        Some(BlockedAddress::Reserved),
    ),
    (
        &["224.0.0.0", "239.255.255.255", "ff00::", "ff02::1", "ffff::1"],
        Row::Never,
        Some(BlockedAddress::Multicast),
    ),
    (
        &[
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2606:4700::1111",
            "fbff::1",
            "fe7f::1",
        ],
        Row::Always,
        None,
    ),
];

#[tokio::test]
async fn every_range_in_every_mode() {
    // 5.R164, 5.R237, 3.R55, 4.R42
    for (addresses, row, category) in TABLE {
        for mode in MODES {
            for address in *addresses {
                let verdict = verdict(mode, address.parse().unwrap()).await;
                let expected = match category {
                    Some(category) if !row.allows(mode) => Err(Refusal::Blocked(*category)),
                    _ => Ok(()),
                };
                assert_eq!(verdict, expected, "{address} in {mode:?}");
            }
        }
    }
}

#[tokio::test]
async fn provisioned_urls_skip_the_loopback_and_private_rows_only() {
    // 5.R168, 4.R43
    for (addresses, row, category) in TABLE {
        for mode in MODES {
            for address in *addresses {
                let url = url_of(address.parse().unwrap());
                let verdict = guard(mode).check_dispatch(&url, Trust::PlatformProvisioned).await;
                match category {
                    Some(category) if *row == Row::Never => {
                        assert_eq!(verdict.unwrap_err(), Refusal::Blocked(*category), "{address}");
                    }
                    _ => assert!(verdict.is_ok(), "{address} in {mode:?}"),
                }
            }
        }
    }
    // A container's name, resolved by the container network.
    let network = AgentGuard::with_resolver(STRICT, OWN_PORT, Fixed::new(&["172.18.0.5"]));
    let (_, addresses) =
        network.check_dispatch("http://ws-0123456789ab:8000", Trust::PlatformProvisioned).await.unwrap();
    assert_eq!(addresses, ["172.18.0.5:8000".parse().unwrap()]);
    let refusal = network.check_dispatch("http://ws-0123456789ab:8000", Trust::Reported).await.unwrap_err();
    assert_eq!(refusal, Refusal::Blocked(BlockedAddress::Private));
}

#[tokio::test]
async fn addresses_inside_ipv6_are_judged_as_ipv4() {
    // 5.R164
    for (addresses, row, category) in TABLE {
        for v4 in addresses.iter().filter_map(|address| address.parse::<Ipv4Addr>().ok()) {
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for v6 in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                for mode in MODES {
                    let expected = match category {
                        Some(category) if !row.allows(mode) => Err(Refusal::Blocked(*category)),
                        _ => Ok(()),
                    };
                    assert_eq!(verdict(mode, v6.into()).await, expected, "{v6} in {mode:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_spelling_is_the_address_it_means() {
    // 5.R161, 4.R42
    for (url, category) in [
        ("http://2852039166/", BlockedAddress::LinkLocal),
        ("http://0xa9fea9fe/", BlockedAddress::LinkLocal),
        ("http://0251.0376.0251.0376/", BlockedAddress::LinkLocal),
        ("http://169.254.43518/", BlockedAddress::LinkLocal),
        ("http://169.254.169.254./", BlockedAddress::LinkLocal),
        ("http://１６９.２５４.１６９.２５４/", BlockedAddress::LinkLocal),
        ("http://%31%36%39.254.169.254/", BlockedAddress::LinkLocal),
        ("http://[::ffff:a9fe:a9fe]/", BlockedAddress::LinkLocal),
        ("http://[64:ff9b::169.254.169.254]/", BlockedAddress::LinkLocal),
        ("http://[2002:a9fe:a9fe::]/", BlockedAddress::LinkLocal),
        ("http://2130706433/", BlockedAddress::Loopback),
        ("http://0x7f.1/", BlockedAddress::Loopback),
        ("http://017700000001/", BlockedAddress::Loopback),
        ("http://127.1/", BlockedAddress::Loopback),
        ("http:\\\\127.0.0.1\\", BlockedAddress::Loopback),
        ("http:127.0.0.1", BlockedAddress::Loopback),
        (" http://127.0.0.1\t", BlockedAddress::Loopback),
        ("http://0/", BlockedAddress::Unspecified),
        ("HTTP://10.1/", BlockedAddress::Private),
    ] {
        let refusal = guard(STRICT).check_registration(url).await.unwrap_err();
        assert_eq!(refusal, Refusal::Blocked(category), "{url}");
        let refusal = guard(STRICT).check_dispatch(url, Trust::Reported).await.unwrap_err();
        assert_eq!(refusal, Refusal::Blocked(category), "{url}");
    }
}

#[tokio::test]
async fn syntax_is_refused_by_category() {
    // 5.R161, 5.R237, 3.R56
    let long = format!("http://1.1.1.1/{}", "a".repeat(MAX_URL_CHARS + 1 - 15));
    for (url, text) in [
        ("", "url is required"),
        (" \n", "url is required"),
        ("file:///etc/passwd", "url scheme must be http or https"),
        ("ftp://1.1.1.1/", "url scheme must be http or https"),
        ("data:text/plain,x", "url scheme must be http or https"),
        ("mailto:a@example.com", "url scheme must be http or https"),
        ("ws://1.1.1.1/", "url scheme must be http or https"),
        ("javascript:alert(1)", "url scheme must be http or https"),
        ("agent.example/path", "url scheme must be http or https"),
        ("//1.1.1.1/", "url scheme must be http or https"),
        ("http://", "url must name a host"),
        ("https://:8080/", "url must name a host"),
        ("http://./", "url must name a host"),
        ("http://user@1.1.1.1/", "url must not contain a user name or password"),
        ("http://:word@1.1.1.1/", "url must not contain a user name or password"),
        ("http://1.1.1.1@169.254.169.254/", "url must not contain a user name or password"),
        ("http://[fe80::1%25eth0]/", "url must not contain an IPv6 zone id"),
        ("http://[fe80::1%eth0]/", "url must not contain an IPv6 zone id"),
        ("http://[::1", "url is not valid"),
        ("http://1.1.1.1:99999/", "url is not valid"),
        ("http://1.2.3.4.5/", "url is not valid"),
        ("http://a b/", "url is not valid"),
        (&long, "url is too long"),
    ] {
        let refusal = guard(DEVELOPMENT).check_registration(url).await.unwrap_err();
        assert_eq!(refusal.to_string(), text, "{url}");
        let dispatch = guard(DEVELOPMENT).check_dispatch(url, Trust::PlatformProvisioned).await.unwrap_err();
        assert_eq!(dispatch, refusal, "{url}");
    }
    assert!(guard(STRICT).check_registration(&long[..MAX_URL_CHARS]).await.is_ok());
    // Characters, not bytes.
    let wide = format!("http://1.1.1.1/{}", "é".repeat(MAX_URL_CHARS - 15));
    assert!(guard(STRICT).check_registration(&wide).await.is_ok());
}

#[tokio::test]
async fn metadata_names_are_blocked_without_a_lookup() {
    // 5.R162
    let resolver = Fixed::new(&["1.1.1.1"]);
    let guard = AgentGuard::with_resolver(SAAS_DEVELOPMENT, OWN_PORT, resolver.clone());
    for host in [
        "metadata",
        "metadata.",
        "METADATA",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
        "metadata.azure.com",
        "metadata.azure.com.",
        "m%65tadata",
    ] {
        for trust in [Trust::Reported, Trust::PlatformProvisioned] {
            let refusal = guard.check_dispatch(&format!("http://{host}/"), trust).await.unwrap_err();
            assert_eq!(refusal.to_string(), "url targets a blocked address: metadata service", "{host}");
        }
        let refusal = guard.check_registration(&format!("https://{host}:8443/")).await.unwrap_err();
        assert_eq!(refusal, Refusal::Blocked(BlockedAddress::Metadata), "{host}");
    }
    assert_eq!(resolver.lookups(), 0);
    assert!(guard.check_registration("http://metadata.example.com/").await.is_ok());
}

#[tokio::test]
async fn a_name_is_resolved_once_and_any_blocked_address_refuses_it() {
    // 5.R165
    let resolver = Fixed::new(&["1.1.1.1", "2606:4700::1111"]);
    let guard = AgentGuard::with_resolver(STRICT, OWN_PORT, resolver.clone());
    let (_, addresses) = guard.check_dispatch("https://agent.example/", Trust::Reported).await.unwrap();
    assert_eq!(addresses, ["1.1.1.1:443".parse().unwrap(), "[2606:4700::1111]:443".parse().unwrap()]);
    assert_eq!(resolver.lookups(), 1);

    let mixed = AgentGuard::with_resolver(STRICT, OWN_PORT, Fixed::new(&["1.1.1.1", "10.0.0.1"]));
    let refusal = mixed.check_registration("http://agent.example/").await.unwrap_err();
    assert_eq!(refusal.to_string(), "url targets a blocked address: private address");

    for resolver in [Fixed::failing(), Fixed::new(&[])] {
        let silent = AgentGuard::with_resolver(SAAS_DEVELOPMENT, OWN_PORT, resolver);
        let refusal = silent.check_registration("http://agent.example/").await.unwrap_err();
        assert_eq!(refusal.to_string(), "url host cannot be resolved");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_has_two_seconds() {
    // 5.R165
    struct Never;
    #[async_trait]
    impl Resolve for Never {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            std::future::pending().await
        }
    }
    let began = Instant::now();
    let guard = AgentGuard::with_resolver(DEVELOPMENT, OWN_PORT, Never);
    let refusal = guard.check_registration("http://agent.example/").await.unwrap_err();
    assert_eq!(refusal, Refusal::Unresolvable);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn localhost_registers_everywhere_and_is_loopback_at_dispatch() {
    // 5.R165
    let resolver = Fixed::failing();
    for host in ["localhost", "LOCALHOST", "localhost."] {
        let url = format!("http://{host}:9000/");
        for mode in MODES {
            let guard = AgentGuard::with_resolver(mode, OWN_PORT, resolver.clone());
            assert!(guard.check_registration(&url).await.is_ok(), "{url} in {mode:?}");

            let dispatch = guard.check_dispatch(&url, Trust::Reported).await.map(|(_, addresses)| addresses);
            let literal = guard.check_literal(&Url::parse(&url).unwrap(), Trust::Reported);
            assert_eq!(dispatch.clone().map(drop), literal);
            if mode.development {
                let loopback = ["127.0.0.1:9000".parse().unwrap(), "[::1]:9000".parse().unwrap()];
                assert_eq!(dispatch.unwrap(), loopback);
            } else {
                assert_eq!(dispatch.unwrap_err(), Refusal::Blocked(BlockedAddress::Loopback));
            }
            assert!(guard.check_dispatch(&url, Trust::PlatformProvisioned).await.is_ok());
        }
    }
    assert_eq!(resolver.lookups(), 0);
}

#[tokio::test]
async fn the_text_of_a_url_earns_no_trust() {
    // 5.R168
    let resolver = Fixed::new(&["10.0.0.1"]);
    let guard = AgentGuard::with_resolver(STRICT, OWN_PORT, resolver.clone());
    for url in ["http://127.0.0.1.evil.com/", "http://localhost.evil.com/", "http://ws-0123456789ab:8000/"] {
        let refusal = guard.check_dispatch(url, Trust::Reported).await.unwrap_err();
        assert_eq!(refusal, Refusal::Blocked(BlockedAddress::Private), "{url}");
    }
    assert_eq!(resolver.lookups(), 3);
}

#[tokio::test]
async fn the_platforms_own_address_is_never_an_agent() {
    // 5.R167
    let own = Refusal::Blocked(BlockedAddress::Platform);
    let mut urls: Vec<String> =
        ["127.0.0.1", "127.8.8.8", "[::1]", "[::ffff:127.0.0.1]", "localhost", "2130706433"]
            .map(|host| format!("http://{host}:{OWN_PORT}/"))
            .into();
    let is_dialable = |address: &IpAddr| {
        matches!(
            classify(effective(*address)),
            None | Some(BlockedAddress::Loopback | BlockedAddress::Private)
        )
    };
    let interfaces: Vec<IpAddr> = interface_addresses().unwrap().into_iter().filter(is_dialable).collect();
    assert!(interfaces.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    urls.extend(interfaces.iter().map(|address| url_of(*address).replace(":9000", ":8080")));

    for mode in [DEVELOPMENT, SAAS_DEVELOPMENT] {
        for url in &urls {
            assert_eq!(guard(mode).check_registration(url).await.unwrap_err(), own, "{url}");
            for trust in [Trust::Reported, Trust::PlatformProvisioned] {
                assert_eq!(guard(mode).check_dispatch(url, trust).await.unwrap_err(), own, "{url}");
            }
            let elsewhere = url.replace(":8080", ":8081");
            assert!(guard(mode).check_dispatch(&elsewhere, Trust::Reported).await.is_ok(), "{elsewhere}");
        }
        // The port alone is not the address.
        assert!(guard(mode).check_dispatch("http://1.1.1.1:8080/", Trust::Reported).await.is_ok());
    }
    let named = AgentGuard::with_resolver(DEVELOPMENT, OWN_PORT, Fixed::new(&["127.0.0.1"]));
    assert_eq!(named.check_registration("http://me.example:8080/").await.unwrap_err(), own);
    let default_port = AgentGuard::with_resolver(DEVELOPMENT, 80, Fixed::failing());
    assert_eq!(default_port.check_registration("http://127.0.0.1/").await.unwrap_err(), own);
    assert_eq!(own.to_string(), "url targets a blocked address: the platform's own address");
}

proptest! {
    #[test]
    fn anything_is_judged_without_a_panic(text in "(https?://)?.{0,60}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let registration = runtime.block_on(guard(STRICT).check_registration(&text));
        let dispatch = runtime.block_on(guard(STRICT).check_dispatch(&text, Trust::Reported));
        // 5.R160
        if let Ok((url, addresses)) = &dispatch {
            prop_assert!(!addresses.is_empty());
            prop_assert_eq!(registration.as_ref(), Ok(url));
        }
    }

    #[test]
    fn what_a_public_address_is_does_not_depend_on_its_spelling(bits in any::<u32>()) {
        let address = Ipv4Addr::from_bits(bits);
        let guard = guard(STRICT);
        let judge = |text: String| guard.check_literal(&Url::parse(&text).unwrap(), Trust::Reported);
        let plain = judge(format!("http://{address}/"));
        prop_assert_eq!(&judge(format!("http://{bits}/")), &plain);
        prop_assert_eq!(&judge(format!("http://{bits:#x}/")), &plain);
        prop_assert_eq!(&judge(format!("http://[::ffff:{address}]/")), &plain);
        prop_assert_eq!(&judge(format!("http://[64:ff9b::{address}]/")), &plain);
    }
}
