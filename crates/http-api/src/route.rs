//! Routes as data, and the pipeline that every request of theirs goes through: identify, authenticate by the
//! route's class, parse, handle, map.
//!
//! A handler is made by the constructor of its class, so that none can be written that nobody authenticates.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use mws_models::WorkspaceId;
use mws_wsauth::{
    Bearer, Caller, Credentials, Denied, DiscoveryPass, DiscoveryRoute, PeerCaller, RegistryPass, SocketAgent,
};
use tokio::time::timeout;

use crate::intake::{Fields, Mode, Query};
use crate::linger::LingeringBody;
use crate::{Api, ApiError};

/// How long a request's body may take to arrive: a client that sends none would hold its task for ever.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// The classes of contract 5 §5 that routes of this server have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthClass {
    /// `O`: nobody is asked.
    Open,
    /// `W`: the workspace in the path, or an operator.
    Workspace,
    /// `A`: an operator.
    Admin,
    /// `R`: the workspace named in the body.
    Registry,
    /// `D`: the workspace that looks around.
    Discovery,
    /// `P`: whoever calls an agent.
    Peer,
    /// `S`: a socket.
    Socket,
}

impl AuthClass {
    /// The letter of the contract's table.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Open => 'O',
            Self::Workspace => 'W',
            Self::Admin => 'A',
            Self::Registry => 'R',
            Self::Discovery => 'D',
            Self::Peer => 'P',
            Self::Socket => 'S',
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, ApiError>> + Send>>;

/// What answers a route, with its class.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) class: AuthClass,
    run: Arc<dyn Fn(Api, Incoming) -> Answer + Send + Sync>,
}

/// One route.
#[derive(Clone)]
pub struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// Bytes of body at most.
    pub(crate) body_cap: usize,
    /// The sentence of its 500.
    pub(crate) failure: &'static str,
    pub(crate) handler: Handler,
}

impl Route {
    /// The method.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The path in the contract's spelling (`/workspaces/:id`).
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// Its auth class.
    #[must_use]
    pub const fn class(&self) -> AuthClass {
        self.handler.class
    }

    /// The same path in the router's spelling.
    pub(crate) fn pattern(&self) -> String {
        let segments = self.path.split('/').map(|segment| match segment.strip_prefix(':') {
            Some(name) => format!("{{{name}}}"),
            None => segment.to_owned(),
        });
        segments.collect::<Vec<_>>().join("/")
    }

    pub(crate) async fn answer(&self, api: Api, request: Incoming) -> Result<Response, ApiError> {
        (self.handler.run)(api, request).await.map_err(|error| error.or_sentence(self.failure))
    }
}

/// A request before authentication.
pub(crate) struct Incoming {
    pub(crate) parts: Parts,
    /// Taken by whoever reads it.
    pub(crate) body: Option<LingeringBody>,
    /// The first parameter of the path, as text.
    pub(crate) id: Option<String>,
    pub(crate) body_cap: usize,
}

impl Incoming {
    fn credentials(&self) -> Credentials<'_> {
        let headers = &self.parts.headers;
        let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        // What is no text names no origin and no workspace, and must not pass for an absent header.
        let claim =
            |name| headers.get(name).map(|value: &http::HeaderValue| value.to_str().unwrap_or("\u{fffd}"));
        let peer = self.parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Credentials {
            bearer: headers
                .get(header::AUTHORIZATION)
                .and_then(|value| Bearer::from_header(value.as_bytes())),
            origin: claim(header::ORIGIN),
            host: text(header::HOST).or_else(|| self.parts.uri.authority().map(|a| a.as_str())),
            // Without a peer nobody is local.
            peer: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            claimed_workspace: claim(HeaderName::from_static("x-workspace-id")),
        }
    }

    fn workspace_id(&self) -> Result<WorkspaceId, ApiError> {
        let id = self.id.as_deref().unwrap_or_default();
        id.parse().map_err(|_| ApiError::bad_request("invalid workspace ID"))
    }

    fn optional_workspace_id(&self) -> Result<Option<WorkspaceId>, ApiError> {
        if self.id.is_some() { self.workspace_id().map(Some) } else { Ok(None) }
    }

    /// The whole body, within the route's cap; a declared length beyond it is refused unread.
    async fn read_body(&mut self) -> Result<Bytes, ApiError> {
        let declared =
            self.parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: u64| length > self.body_cap as u64) {
            return Err(ApiError::body_too_large());
        }
        let Some(body) = self.body.take() else { return Ok(Bytes::new()) };
        let whole = Limited::new(body, self.body_cap).collect();
        match timeout(BODY_DEADLINE, whole).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(ApiError::body_too_large())
            }
            Ok(Err(_)) => Err(ApiError::bad_request("failed to read request body")),
            Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "request body did not arrive in time")),
        }
    }
}

/// An authenticated request without a workspace in its path, or with one that is not the caller's own matter.
pub(crate) struct Request {
    pub(crate) caller: Caller,
    /// The workspace in the path; only routes that have one call [`Request::id`].
    id: Option<WorkspaceId>,
    incoming: Incoming,
}

impl Request {
    /// The workspace in the path.
    pub(crate) fn id(&self) -> Result<WorkspaceId, ApiError> {
        self.id.ok_or_else(ApiError::failed)
    }

    /// The workspace in the path, where a route may have none.
    pub(crate) const fn maybe_id(&self) -> Option<WorkspaceId> {
        self.id
    }

    pub(crate) fn query(&self) -> Query {
        Query::of(&self.incoming.parts.uri)
    }

    /// The body as one JSON object of an operator.
    pub(crate) async fn fields(&mut self, malformed: &'static str) -> Result<Fields, ApiError> {
        Fields::parse(&self.incoming.read_body().await?, Mode::Refuse, malformed)
    }
}

/// What an agent sends to the registry.
pub(crate) trait RegistryBody: Sized + Send + 'static {
    /// The shape checks of 3.R8.
    fn read(fields: &Fields) -> Result<Self, ApiError>;
    /// Who it claims to be.
    fn workspace(&self) -> WorkspaceId;
}

/// A registry request that passed the gate.
pub(crate) struct RegistryRequest<T> {
    pub(crate) pass: RegistryPass,
    pub(crate) body: T,
    /// Whether a bearer was presented: the words of a late 401 depend on it.
    pub(crate) has_bearer: bool,
    /// It came by the open development tier.
    pub(crate) dev_open: bool,
}

/// A call to an agent whose caller is identified.
pub(crate) struct PeerRequest {
    pub(crate) caller: PeerCaller,
    pub(crate) target: WorkspaceId,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An agent that looks around.
pub(crate) struct DiscoveryRequest {
    pub(crate) id: WorkspaceId,
    pub(crate) query: Query,
}

fn handler<F, Fut>(class: AuthClass, run: F) -> Handler
where
    F: Fn(Api, Incoming) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    Handler { class, run: Arc::new(move |api, incoming| Box::pin(run(api, incoming))) }
}

/// Class O.
pub(crate) fn open<F, Fut>(run: F) -> Handler
where
    F: Fn(Api, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    handler(AuthClass::Open, move |api, incoming| {
        let run = run.clone();
        async move {
            let id = incoming.optional_workspace_id()?;
            run(api, Request { caller: Caller::Anonymous, id, incoming }).await
        }
    })
}

/// Class A.
pub(crate) fn admin<F, Fut>(run: F) -> Handler
where
    F: Fn(Api, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    handler(AuthClass::Admin, move |api, incoming| {
        let run = run.clone();
        async move {
            let caller = api.auth().admin(&incoming.credentials()).await?;
            let id = incoming.optional_workspace_id()?;
            run(api, Request { caller, id, incoming }).await
        }
    })
}

/// Class W. `last_word` may still answer for a refused caller (1.R83).
pub(crate) fn workspace<F, Fut, L, LFut>(last_word: L, run: F) -> Handler
where
    F: Fn(Api, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
    L: Fn(Api, WorkspaceId, Vec<u8>) -> LFut + Clone + Send + Sync + 'static,
    LFut: Future<Output = Result<Option<Response>, ApiError>> + Send + 'static,
{
    handler(AuthClass::Workspace, move |api, incoming| {
        let (run, last_word) = (run.clone(), last_word.clone());
        async move {
            let id_text = incoming.id.clone().unwrap_or_default();
            let credentials = incoming.credentials();
            let caller = match api.auth().workspace(&credentials, &id_text).await {
                Ok(caller) => caller,
                Err(denied) => {
                    let bearer = credentials.bearer.map(|bearer| bearer.as_bytes().to_vec());
                    if let (Denied::InvalidWorkspaceToken, Some(bearer), Ok(id)) =
                        (denied, bearer, id_text.parse())
                        && let Some(answer) = last_word(api, id, bearer).await?
                    {
                        return Ok(answer);
                    }
                    return Err(denied.into());
                }
            };
            let id = incoming.optional_workspace_id()?;
            run(api, Request { caller, id, incoming }).await
        }
    })
}

/// Class R: shape checks, then the gate, then the handler.
pub(crate) fn registry<T, F, Fut>(run: F) -> Handler
where
    T: RegistryBody,
    F: Fn(Api, RegistryRequest<T>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    handler(AuthClass::Registry, move |api, mut incoming| {
        let run = run.clone();
        async move {
            let bytes = incoming.read_body().await?;
            let body = T::read(&Fields::parse(&bytes, Mode::Repair, "invalid request body")?)?;
            let credentials = incoming.credentials();
            let has_bearer = credentials.bearer.is_some();
            let policy = api.auth().policy();
            let dev_open = policy.dev_open() && policy.open_tier_allowed(&credentials);
            let pass = api.auth().registry(&credentials, body.workspace()).await?;
            run(api, RegistryRequest { pass, body, has_bearer, dev_open }).await
        }
    })
}

/// Class D for the workspace in the path.
pub(crate) fn discovery<F, Fut>(run: F) -> Handler
where
    F: Fn(Api, DiscoveryRequest) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    handler(AuthClass::Discovery, move |api, incoming| {
        let run = run.clone();
        async move {
            // A malformed id names no workspace: there is nobody to authenticate, and nothing to find.
            let id = incoming.workspace_id()?;
            match api.auth().discovery(&incoming.credentials(), id, DiscoveryRoute::Peers).await? {
                DiscoveryPass::Pass(_) => {}
                DiscoveryPass::NoSuchWorkspace => return Err(ApiError::not_found("workspace not found")),
            }
            run(api, DiscoveryRequest { id, query: Query::of(&incoming.parts.uri) }).await
        }
    })
}

/// Class P: id, body, caller (4.R10).
pub(crate) fn peer<F, Fut>(run: F) -> Handler
where
    F: Fn(Api, PeerRequest) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    handler(AuthClass::Peer, move |api, mut incoming| {
        let run = run.clone();
        async move {
            let target = incoming.workspace_id()?;
            let body = incoming.read_body().await?;
            let caller = api.auth().peer(&incoming.credentials(), target).await?;
            run(api, PeerRequest { caller, target, headers: incoming.parts.headers, body }).await
        }
    })
}

/// Class S. The answer to a client that is not let in comes before the upgrade (3.R113, 3.R115).
pub(crate) fn socket<F, Fut>(run: F) -> Handler
where
    F: Fn(Api, Parts, Option<SocketAgent>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    handler(AuthClass::Socket, move |api, incoming| {
        let run = run.clone();
        async move {
            let credentials = incoming.credentials();
            let agent = match credentials.claim() {
                Some(claim) => Some(api.auth().socket_agent(&credentials, claim).await?),
                None => {
                    api.auth().socket_canvas(&credentials).await?;
                    None
                }
            };
            run(api, incoming.parts, agent).await
        }
    })
}
