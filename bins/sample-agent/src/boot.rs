//! What the agent finds when it boots: its environment and `config.yaml`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::http::Endpoint;

const DEFAULT_PLATFORM: &str = "http://host.docker.internal:8080";
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
/// Bounds what is read of a file that a template ships.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("WORKSPACE_ID is not set")]
    NoWorkspaceId,
    #[error("{0} is not usable")]
    BadVariable(&'static str),
    #[error("config.yaml cannot be read: {0}")]
    ConfigMissing(io::Error),
    #[error("config.yaml is not valid: {0}")]
    ConfigInvalid(String),
    #[error("required variables are missing: {}", .0.join(", "))]
    MissingEnv(Vec<String>),
    #[error("{0}")]
    Io(io::Error),
}

/// From the environment.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) workspace_id: String,
    pub(crate) platform: Endpoint,
    pub(crate) configs: PathBuf,
    pub(crate) workspace: PathBuf,
    /// What the server is told to dial.
    pub(crate) own_url: String,
    pub(crate) listen: SocketAddr,
    pub(crate) heartbeat_every: Duration,
}

impl Settings {
    pub(crate) fn read(env: &BTreeMap<String, String>) -> Result<Self, BootError> {
        let get = |name: &str| env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let workspace_id = get("WORKSPACE_ID").ok_or(BootError::NoWorkspaceId)?.to_owned();
        let platform = get("PLATFORM_URL").unwrap_or(DEFAULT_PLATFORM);
        let listen = match get("SAMPLE_LISTEN") {
            Some(text) => text.parse().map_err(|_| BootError::BadVariable("SAMPLE_LISTEN"))?,
            None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, crate::PORT)),
        };
        let heartbeat_every = match get("SAMPLE_HEARTBEAT_SECONDS") {
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| (1..=3600).contains(seconds))
                .map(Duration::from_secs)
                .ok_or(BootError::BadVariable("SAMPLE_HEARTBEAT_SECONDS"))?,
            None => DEFAULT_HEARTBEAT,
        };
        Ok(Self {
            workspace_id,
            platform: Endpoint::parse(platform).ok_or(BootError::BadVariable("PLATFORM_URL"))?,
            configs: get("WORKSPACE_CONFIG_PATH").unwrap_or("/configs").into(),
            workspace: get("SAMPLE_WORKSPACE").unwrap_or("/workspace").into(),
            own_url: format!("http://{}:{}", get("HOSTNAME").unwrap_or("localhost"), listen.port()),
            listen,
            heartbeat_every,
        })
    }
}

/// What is used of `config.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentConfig {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) initial_prompt: Option<String>,
}

#[derive(Deserialize)]
struct RawConfig {
    name: Option<String>,
    description: Option<String>,
    initial_prompt: Option<String>,
    initial_prompt_file: Option<String>,
    runtime_config: Option<RawRuntimeConfig>,
}

#[derive(Deserialize)]
struct RawRuntimeConfig {
    required_env: Option<Vec<String>>,
}

pub(crate) fn load_config(
    settings: &Settings,
    env: &BTreeMap<String, String>,
) -> Result<AgentConfig, BootError> {
    let text = read_bounded(&settings.configs.join("config.yaml")).map_err(BootError::ConfigMissing)?;
    parse_config(&text, env, |file| read_bounded(&settings.configs.join(file)))
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_CONFIG_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn parse_config(
    text: &str,
    env: &BTreeMap<String, String>,
    read: impl FnOnce(&str) -> io::Result<String>,
) -> Result<AgentConfig, BootError> {
    let raw: RawConfig =
        serde_saphyr::from_str(text).map_err(|error| BootError::ConfigInvalid(error.to_string()))?;
    let missing: Vec<String> = raw
        .runtime_config
        .and_then(|runtime| runtime.required_env)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| env.get(name).is_none_or(String::is_empty))
        .collect();
    if !missing.is_empty() {
        return Err(BootError::MissingEnv(missing));
    }
    let initial_prompt = match (raw.initial_prompt, raw.initial_prompt_file) {
        (Some(prompt), _) => Some(prompt),
        (None, Some(file)) => Some(read(&file).map_err(BootError::Io)?),
        (None, None) => None,
    };
    Ok(AgentConfig {
        name: raw.name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "sample-agent".to_owned()),
        description: raw.description.unwrap_or_default(),
        initial_prompt: initial_prompt.filter(|prompt| !prompt.trim().is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn no_file(_: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    #[test]
    fn the_environment_has_defaults() {
        // 13.2 steps 1, 4, 5, 6
        let settings = Settings::read(&env(&[("WORKSPACE_ID", "w"), ("HOSTNAME", "ws-1")])).unwrap();
        assert_eq!(settings.platform.to_string(), "http://host.docker.internal:8080");
        assert_eq!(settings.own_url, "http://ws-1:8000");
        assert_eq!(settings.listen.to_string(), "0.0.0.0:8000");
        assert_eq!(settings.configs, Path::new("/configs"));
        assert_eq!(settings.heartbeat_every, Duration::from_secs(30));
    }

    #[test]
    fn unusable_environments_are_refused() {
        // 13.2 step 1
        assert!(matches!(Settings::read(&env(&[])), Err(BootError::NoWorkspaceId)));
        assert!(matches!(Settings::read(&env(&[("WORKSPACE_ID", " ")])), Err(BootError::NoWorkspaceId)));
        for (name, value) in
            [("PLATFORM_URL", "https://x"), ("SAMPLE_HEARTBEAT_SECONDS", "0"), ("SAMPLE_LISTEN", "x")]
        {
            let env = env(&[("WORKSPACE_ID", "w"), (name, value)]);
            assert!(matches!(Settings::read(&env), Err(BootError::BadVariable(_))), "{name}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored() {
        // 13.1
        let text = "name: Lead\ndescription: leads\ntier: 2\nruntime_config: {timeout: 0, model: x}\na2a: {port: 8000}\n";
        let config = parse_config(text, &env(&[]), no_file).unwrap();
        assert_eq!(
            config,
            AgentConfig { name: "Lead".into(), description: "leads".into(), initial_prompt: None }
        );
    }

    #[test]
    fn required_variables_are_checked() {
        // 13.2 step 2
        let text = "name: x\nruntime_config: {required_env: [ZED, ALPHA, SET]}\n";
        match parse_config(text, &env(&[("SET", "1"), ("ALPHA", "")]), no_file) {
            Err(BootError::MissingEnv(names)) => assert_eq!(names, ["ZED", "ALPHA"]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(parse_config("[", &env(&[]), no_file), Err(BootError::ConfigInvalid(_))));
    }

    #[test]
    fn a_prompt_comes_from_the_config_or_from_its_file() {
        // 13.2 step 7
        let config = parse_config("name: x\ninitial_prompt: hi\n", &env(&[]), no_file).unwrap();
        assert_eq!(config.initial_prompt.as_deref(), Some("hi"));
        let from_file =
            parse_config("name: x\ninitial_prompt_file: p.md\n", &env(&[]), |file| Ok(format!("of {file}")));
        assert_eq!(from_file.unwrap().initial_prompt.as_deref(), Some("of p.md"));
    }
}
