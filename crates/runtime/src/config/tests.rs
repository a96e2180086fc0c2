use super::*;

fn host() -> Host {
    Host { root: true, current_dir: "/srv".into(), data_home: None, home: None }
}

fn try_load(variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(owned, &host())
}

fn load(variables: &[(&str, &str)]) -> Loaded {
    try_load(variables).unwrap()
}

fn shown(loaded: &Loaded, name: &str) -> String {
    loaded.config.shown(name)
}

/// What no variable set, or every variable set to nothing, gives.
const DEFAULTS: &[(&str, &str)] = &[
    ("PORT", "8080"),
    ("DATABASE_URL", "unset"),
    ("PLATFORM_URL", "http://host.docker.internal:8080"),
    ("EXTERNAL_PLATFORM_URL", "unset"),
    ("CONFIGS_DIR", "unset"),
    ("MWS_DATA_DIR", "/var/lib/mws"),
    ("WORKSPACE_MANIFEST_PATH", "unset"),
    ("MOLECULE_ENV", "other"),
    ("MOLECULE_DEPLOY_MODE", "self-hosted"),
    ("MOLECULE_ORG_ID", "unset"),
    ("ADMIN_TOKEN", "unset"),
    ("MOLECULE_BOOTSTRAP_OPEN", "0"),
    ("MOLECULE_ALLOWED_HOSTS", "host.docker.internal"),
    ("CORS_ORIGINS", "http://localhost:3000,http://localhost:3001,http://host.docker.internal:8080"),
    ("SECRETS_ENCRYPTION_KEY", "unset"),
    ("SECRETS_ENCRYPTION_KEYS_OLD", "unset"),
    ("PROVISIONER_BACKEND", "auto"),
    ("DOCKER_HOST", "unix:///var/run/docker.sock"),
    ("MOLECULE_DOCKER_NETWORK", "molecule-monorepo-net"),
    ("MOLECULE_INSTANCE_ID", "unset"),
    ("MOLECULE_IN_DOCKER", "to be detected"),
    ("WORKSPACE_IMAGE_OVERRIDES", "unset"),
    ("MOLECULE_IMAGE_REGISTRY", "ghcr.io/molecule-ai"),
    ("PROVISION_CONCURRENCY", "3"),
    ("PROVISION_TIMEOUT_SECONDS", "unset"),
    ("TIER2_MEMORY_MB", "512"),
    ("TIER2_CPU_SHARES", "1024"),
    ("TIER3_MEMORY_MB", "2048"),
    ("TIER3_CPU_SHARES", "2048"),
    ("TIER4_MEMORY_MB", "4096"),
    ("TIER4_CPU_SHARES", "4096"),
    ("WORKSPACE_DIR", "unset"),
    ("AWARENESS_URL", "unset"),
    ("MWS_SWEEPS", "on"),
    ("MWS_ALLOW_SELF_REGISTRATION", "false"),
    ("WS_MAX_CLIENTS", "2000"),
    ("A2A_IDLE_TIMEOUT_SECONDS", "300"),
    ("A2A_RESPONSE_HEADER_TIMEOUT_SECONDS", "60"),
    ("A2A_REQUIRE_CALLER_AUTH", "false"),
    ("RUST_LOG", "unset"),
];

// 2.R8, 2.R40, 2.R83, 3.R19, 3.R93, 3.R121, 4.R17, 4.R49, 4.R50, 5.R95, 5.R163
#[test]
fn with_nothing_set_every_variable_has_its_default_and_nothing_is_warned_about() {
    let nothing = load(&[]);
    let expected: Vec<(&str, String)> = DEFAULTS.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    assert_eq!(nothing.config.summary(), expected);
    assert_eq!(nothing.warnings, Vec::<String>::new());

    let blank: Vec<(&str, &str)> = VARIABLES.iter().map(|variable| (variable.name, " \n")).collect();
    let blank = load(&blank);
    assert_eq!(blank.config.summary(), expected);
    assert_eq!(blank.warnings, Vec::<String>::new());
}

#[test]
fn usable_values_are_taken_without_a_warning() {
    for (name, value, expected) in [
        ("PORT", " 9000 ", "9000"),
        ("DATABASE_URL", "postgresql://u:p@h/d", "set"),
        ("PLATFORM_URL", "https://Team.example/", "https://team.example"),
        ("EXTERNAL_PLATFORM_URL", "https://public.example:8443/x", "https://public.example:8443/x"),
        ("CONFIGS_DIR", "templates", "templates"),
        ("MWS_DATA_DIR", "/data", "/data"),
        ("MWS_DATA_DIR", "data", "/srv/data"),
        ("WORKSPACE_MANIFEST_PATH", "/etc/m.json", "/etc/m.json"),
        ("MOLECULE_ENV", " Dev ", "development"),
        ("MOLECULE_ENV", "staging", "other"),
        ("MOLECULE_ORG_ID", " org-1 ", "org-1"),
        ("ADMIN_TOKEN", "0123456789abcdef", "set"),
        ("MOLECULE_BOOTSTRAP_OPEN", "1", "1"),
        ("MOLECULE_ALLOWED_HOSTS", "A.example, b:9,https://c/x", "a.example,b,c,host.docker.internal"),
        ("SECRETS_ENCRYPTION_KEY", "k", "set"),
        ("SECRETS_ENCRYPTION_KEYS_OLD", "k,l", "set"),
        ("PROVISIONER_BACKEND", "Docker", "docker"),
        ("PROVISIONER_BACKEND", "controlplane", "controlplane"),
        ("PROVISIONER_BACKEND", "none", "none"),
        ("DOCKER_HOST", "tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"),
        ("MOLECULE_DOCKER_NETWORK", "my_net.1-a", "my_net.1-a"),
        ("MOLECULE_INSTANCE_ID", "blue", "blue"),
        ("MOLECULE_IN_DOCKER", "T", "true"),
        ("MOLECULE_IN_DOCKER", "False", "false"),
        ("WORKSPACE_IMAGE_OVERRIDES", " sample = a/b:c ,hermes-default=d@e,", "hermes=d@e,sample=a/b:c"),
        ("MOLECULE_IMAGE_REGISTRY", "registry.example:5000/x/", "registry.example:5000/x"),
        ("PROVISION_CONCURRENCY", "1", "1"),
        ("PROVISION_TIMEOUT_SECONDS", "900", "900"),
        ("TIER2_MEMORY_MB", "256", "256"),
        ("TIER2_CPU_SHARES", "1", "1"),
        ("TIER3_MEMORY_MB", "4000", "4000"),
        ("TIER3_CPU_SHARES", "512", "512"),
        ("TIER4_MEMORY_MB", "8000", "8000"),
        ("TIER4_CPU_SHARES", "1024", "1024"),
        ("WORKSPACE_DIR", "/home/team", "/home/team"),
        ("AWARENESS_URL", "http://awareness:1", "http://awareness:1"),
        ("MWS_SWEEPS", "OFF", "off"),
        ("MWS_ALLOW_SELF_REGISTRATION", "true", "true"),
        ("WS_MAX_CLIENTS", "1", "1"),
        ("A2A_IDLE_TIMEOUT_SECONDS", "1", "1"),
        ("A2A_RESPONSE_HEADER_TIMEOUT_SECONDS", "5", "5"),
        ("A2A_REQUIRE_CALLER_AUTH", "1", "true"),
        ("RUST_LOG", "debug,hyper=info", "debug,hyper=info"),
    ] {
        let loaded = load(&[(name, value)]);
        assert_eq!(shown(&loaded, name), expected, "{name}");
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{name}");
    }
}

// 2.R40, 4.R49, 5.R95
#[test]
fn an_unusable_value_gives_the_default_and_one_warning_that_names_it() {
    for (name, value) in [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PLATFORM_URL", "team.example"),
        ("EXTERNAL_PLATFORM_URL", "ftp://x"),
        ("MOLECULE_DEPLOY_MODE", "prod"),
        ("MOLECULE_BOOTSTRAP_OPEN", "true"),
        ("MOLECULE_ALLOWED_HOSTS", "a b"),
        ("PROVISIONER_BACKEND", "podman"),
        ("DOCKER_HOST", "ssh://h"),
        ("DOCKER_HOST", "unix://"),
        ("MOLECULE_DOCKER_NETWORK", "-x"),
        ("MOLECULE_DOCKER_NETWORK", "a b"),
        ("MOLECULE_IN_DOCKER", "yes"),
        ("WORKSPACE_IMAGE_OVERRIDES", "sample"),
        ("WORKSPACE_IMAGE_OVERRIDES", "=image"),
        ("WORKSPACE_IMAGE_OVERRIDES", "sample=a b"),
        ("MOLECULE_IMAGE_REGISTRY", "https://ghcr.io"),
        ("PROVISION_CONCURRENCY", "0"),
        ("PROVISION_TIMEOUT_SECONDS", "-1"),
        ("TIER2_MEMORY_MB", "0"),
        ("TIER2_CPU_SHARES", "1.5"),
        ("TIER3_MEMORY_MB", "lots"),
        ("TIER3_CPU_SHARES", "-1"),
        ("TIER4_MEMORY_MB", "99999999999"),
        ("TIER4_CPU_SHARES", "0x10"),
        ("WORKSPACE_DIR", "relative"),
        ("WORKSPACE_DIR", "/home/../etc"),
        ("AWARENESS_URL", "awareness"),
        ("MWS_SWEEPS", "no"),
        ("MWS_ALLOW_SELF_REGISTRATION", "maybe"),
        ("WS_MAX_CLIENTS", "many"),
        ("A2A_IDLE_TIMEOUT_SECONDS", "0"),
        ("A2A_IDLE_TIMEOUT_SECONDS", "5m"),
        ("A2A_RESPONSE_HEADER_TIMEOUT_SECONDS", "-5"),
        ("A2A_REQUIRE_CALLER_AUTH", "on"),
    ] {
        let loaded = load(&[(name, value)]);
        let default = DEFAULTS.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(shown(&loaded, name), default, "{name}={value}");
        assert_eq!(loaded.warnings.len(), 1, "{name}={value}: {:?}", loaded.warnings);
        let warning = &loaded.warnings[0];
        assert!(warning.contains(name) && warning.contains(value), "{warning}");
    }
    let warning = &load(&[("A2A_IDLE_TIMEOUT_SECONDS", "0")]).warnings[0];
    assert_eq!(warning, "A2A_IDLE_TIMEOUT_SECONDS=\"0\" is not usable; taking the default: 300");
}

#[test]
fn a_warning_is_one_short_line() {
    let value = format!("a\nb{}", "x".repeat(5000));
    let warning = &load(&[("PORT", &value)]).warnings[0];
    assert!(warning.len() < 250 && warning.lines().count() == 1, "{warning}");
}

// 5.R95
#[test]
fn a_list_of_origins_replaces_the_local_ones_and_never_those_of_the_platform_urls() {
    let loaded = load(&[
        (
            "CORS_ORIGINS",
            " https://a.example , https://*.example, https://b.example/, null,https://a.example",
        ),
        ("PLATFORM_URL", "http://Platform.example:80/base"),
        ("EXTERNAL_PLATFORM_URL", "https://public.example"),
    ]);
    let expected = ["https://a.example", "http://platform.example", "https://public.example"];
    assert_eq!(loaded.config.access.allowed_origins, expected);
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
}

// 5.R82
#[test]
fn the_hosts_of_the_platform_urls_are_allowed_hosts() {
    let loaded = load(&[
        ("MOLECULE_ALLOWED_HOSTS", "[::1]:80"),
        ("PLATFORM_URL", "http://platform.example"),
        ("EXTERNAL_PLATFORM_URL", "https://public.example"),
    ]);
    assert_eq!(loaded.config.access.allowed_hosts, ["[::1]", "platform.example", "public.example"]);
}

// 5 §0
#[test]
fn the_class_of_an_install_is_read_by_one_function() {
    for (text, class) in [
        ("production", EnvClass::Production),
        (" PROD ", EnvClass::Production),
        ("Development", EnvClass::Development),
        ("dev", EnvClass::Development),
        ("", EnvClass::Other),
        ("staging", EnvClass::Other),
        ("devel", EnvClass::Other),
    ] {
        assert_eq!(EnvClass::parse(text), class, "{text}");
    }
}

// 5 §0: either condition failing turns it off
#[test]
fn development_is_open_only_without_an_admin_token() {
    assert!(load(&[("MOLECULE_ENV", "dev")]).config.dev_open());
    assert!(load(&[("MOLECULE_ENV", "dev"), ("ADMIN_TOKEN", "  ")]).config.dev_open());
    assert!(!load(&[("MOLECULE_ENV", "dev"), ("ADMIN_TOKEN", "x")]).config.dev_open());
    for class in ["", "prod", "staging"] {
        assert!(!load(&[("MOLECULE_ENV", class)]).config.dev_open(), "{class}");
    }
}

// 5.R163
#[test]
fn saas_mode_follows_the_deploy_mode_and_without_one_the_organisation() {
    for (mode, org, saas, warnings) in [
        (" SaaS ", "", true, 0),
        ("self-hosted", "o", false, 0),
        ("selfhosted", "o", false, 0),
        ("Standalone", "o", false, 0),
        ("prod", "o", false, 1),
        ("", " o ", true, 0),
        ("", "  ", false, 0),
    ] {
        let loaded = load(&[("MOLECULE_DEPLOY_MODE", mode), ("MOLECULE_ORG_ID", org)]);
        assert_eq!(loaded.config.access.saas, saas, "{mode} {org}");
        assert_eq!(loaded.warnings.len(), warnings, "{mode} {org}");
    }
}

// 5.R127
#[test]
fn a_short_admin_token_and_a_missing_one_in_production_are_warned_about() {
    assert_eq!(load(&[("ADMIN_TOKEN", "0123456789abcde")]).warnings.len(), 1);
    assert_eq!(load(&[("ADMIN_TOKEN", " 0123456789abcde ")]).warnings.len(), 1);
    assert_eq!(load(&[("ADMIN_TOKEN", "0123456789abcdef")]).warnings.len(), 0);
    assert_eq!(load(&[("MOLECULE_ENV", "production")]).warnings.len(), 1);
    assert_eq!(load(&[("MOLECULE_ENV", "staging")]).warnings.len(), 0);
    let token = load(&[("ADMIN_TOKEN", " 0123456789abcdef\n")]).config.access.admin_token.unwrap();
    assert_eq!(token.expose_secret(), "0123456789abcdef");
}

// 5.R129: 32 raw bytes may begin or end with a blank
#[test]
fn the_encryption_key_is_kept_as_it_is() {
    let loaded = load(&[("SECRETS_ENCRYPTION_KEY", " 0123456789012345678901234567890\n")]);
    assert_eq!(loaded.config.secrets.key.unwrap().expose_secret(), " 0123456789012345678901234567890\n");
}

#[test]
fn what_would_start_on_the_wrong_data_is_an_error() {
    let error = try_load(&[("DATABASE_URL", "mysql://root:hunter2@db.internal/x")]).unwrap_err();
    assert!(matches!(error, ConfigError::DatabaseUrl));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let homeless = Host { root: false, current_dir: "/".into(), data_home: None, home: None };
    assert!(matches!(Config::load([], &homeless).unwrap_err(), ConfigError::NoDataDir));
}

#[test]
fn an_ordinary_user_keeps_data_in_the_data_home() {
    let folder = |data_home: Option<&str>| {
        let data_home = data_home.map(PathBuf::from);
        let host = Host { root: false, current_dir: "/".into(), data_home, home: Some("/home/u".into()) };
        Config::load([], &host).unwrap().config.server.data_dir
    };
    assert_eq!(folder(None), Path::new("/home/u/.local/share/mws"));
    assert_eq!(folder(Some("/x")), Path::new("/x/mws"));
}

#[test]
fn no_secret_is_in_debug_summary_or_warnings() {
    let set: Vec<(&str, &str)> = VARIABLES
        .iter()
        .filter(|variable| variable.secret)
        .map(|variable| match variable.name {
            "DATABASE_URL" => (variable.name, "postgres://u:hunter2@db.internal/d"),
            name => (name, "hunter2"),
        })
        .chain([
            ("PLATFORM_URL", "http://u:hunter2@h"),
            ("AWARENESS_URL", "http://u:hunter2@h"),
            ("DOCKER_HOST", "tcp://u:hunter2@h"),
            ("CORS_ORIGINS", "https://u:hunter2@h"),
            ("MOLECULE_ALLOWED_HOSTS", "https://u:hunter2@h"),
        ])
        .collect();
    let loaded = load(&set);
    assert_eq!(loaded.warnings.len(), 6, "{:?}", loaded.warnings);
    let all = format!("{loaded:?} {:?} {:?}", loaded.config.summary(), loaded.warnings);
    assert!(!all.contains("hunter2") && !all.contains("db.internal"), "{all}");
}

#[test]
fn the_environment_of_a_process_can_be_read() {
    let loaded = Config::from_process().unwrap();
    assert!(loaded.config.server.data_dir.is_absolute());
}
