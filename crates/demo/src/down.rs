use std::path::PathBuf;

use crate::folder::Folder;
use crate::out::Out;
use crate::process::{self, Ending};
use crate::{DemoError, DemoOptions, StopError, teardown};

/// Removes what a demo left that was killed: its server, its containers, volumes and network, and through
/// `stop_postgres` (given the demo's data folder) its private Postgres. Finding nothing is a success.
///
/// May be cancelled and called again.
///
/// # Errors
/// [`DemoError::CleanUp`] with what is left; everything else is removed all the same.
pub async fn down(
    options: DemoOptions,
    stop_postgres: impl AsyncFnOnce(PathBuf) -> Result<(), StopError>,
) -> Result<(), DemoError> {
    let out = Out;
    let folder = Folder::ensure(options.folder())?;
    if let Some(pid) = process::survivor(&options, &folder) {
        out.line(format_args!("stopping the server (process {pid})"));
        process::end(pid).await;
    }
    folder.remove_pid();
    let mut failures = Vec::new();
    // Whatever ended the server: only a look tells whether its Postgres ended with it.
    teardown::release(&options, Ending::Killed, stop_postgres, &mut failures).await;
    teardown::conclude(failures)?;
    out.line(format_args!("nothing of {} is left", options.instance));
    Ok(())
}
