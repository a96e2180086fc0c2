use std::path::PathBuf;

use mws_runtime::shutdown::Signals;

use crate::api::Api;
use crate::folder::Folder;
use crate::out::Out;
use crate::process::{self, Server};
use crate::team::Team;
use crate::{DemoError, DemoOptions, StopError, conversation, events, guide, teardown};

/// What is up so far, and so has to come down.
struct Demo<'a> {
    options: &'a DemoOptions,
    folder: Folder,
    out: Out,
    server: Option<Server>,
    api: Option<Api>,
    team: Option<Team>,
}

/// Starts a server of its own, creates a team, lets it talk, shows the way on and, unless `once`, follows the
/// events until Ctrl-C. Then, or as soon as a step fails, everything is torn down again.
///
/// `stop_postgres` is called with the demo's data folder when the server could not stop its private Postgres
/// itself. Cancelling the future kills the server and leaves the rest to [`down`](crate::down).
///
/// # Errors
/// The step that failed, or what could not be cleaned up.
pub async fn run(
    options: DemoOptions,
    stop_postgres: impl AsyncFnOnce(PathBuf) -> Result<(), StopError>,
) -> Result<(), DemoError> {
    let out = Out;
    let mut signals = Signals::install().map_err(DemoError::Signals)?;
    let folder = Folder::ensure(options.folder())?;
    if let Some(pid) = process::survivor(&options, &folder) {
        return Err(DemoError::AlreadyUp(pid));
    }
    let mut demo = Demo { options: &options, folder, out, server: None, api: None, team: None };

    let mut outcome = tokio::select! {
        outcome = demo.show() => outcome,
        _ = signals.next() => Err(DemoError::Interrupted),
    };
    if outcome.is_ok() && !options.once {
        outcome = tokio::select! {
            outcome = demo.follow() => outcome,
            _ = signals.next() => Ok(()),
        };
    }

    out.heading("Tearing down");
    let Demo { server, api, .. } = demo;
    let cleaned = tokio::select! {
        cleaned = teardown::clean_up(&options, server, api.as_ref(), stop_postgres, out) => cleaned,
        _ = signals.next() => Err(DemoError::CleanUpInterrupted),
    };
    match &cleaned {
        Ok(()) => out.line(format_args!("  no container, volume, network or process of it is left")),
        // Where it is not the outcome itself, it would be lost.
        Err(error) if outcome.is_err() => out.line(format_args!("  {error}")),
        Err(_) => {}
    }
    if options.engine_started {
        out.line(format_args!("  the Docker engine that had to be started for it stays"));
    }
    outcome.and(cleaned)
}

impl Demo<'_> {
    async fn show(&mut self) -> Result<(), DemoError> {
        let (options, out) = (self.options, self.out);
        let token = self.folder.admin_token()?;
        let port = process::free_port(options.port)?;
        if port != options.port {
            out.line(format_args!("Port {} is taken; using {port}", options.port));
        }

        out.heading("Starting the server");
        let api = self.api.insert(Api::new(port, &token).map_err(DemoError::api("setting up HTTP"))?);
        let server = self.server.insert(Server::start(options, &self.folder, port, &token)?);
        server.ready(api).await?;
        out.line(format_args!("  listening on port {port}, logging to {}", self.folder.log().display()));
        let old = teardown::delete_all(api).await.map_err(DemoError::api("removing an earlier team"))?;
        if old > 0 {
            out.line(format_args!("  removed the team of an earlier `up`"));
        }

        out.heading("Creating a team of three");
        let team = self.team.insert(Team::create(api).await?);
        team.wait_online(api, out, &self.folder.log()).await?;

        out.heading("The conversation");
        conversation::hold(api, team, out).await?;

        if !options.once {
            guide::print(out, port, &token, team);
        }
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), DemoError> {
        let (Some(api), Some(team), Some(server)) = (&self.api, &self.team, &mut self.server) else {
            return Ok(());
        };
        self.out.heading("Events, until Ctrl-C");
        events::follow(api, team, server, self.out).await
    }
}
