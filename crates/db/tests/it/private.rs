//! The private Postgres: it starts, is shared, survives and leaves nothing behind (contract 2 §17).

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mws_db::private::{PrivateConfig, PrivateError, PrivatePostgres, Tuning};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, getpgid};
use sqlx::{Connection as _, PgConnection, Row as _};
use tempfile::TempDir;

/// A data folder that the account that runs Postgres can reach.
fn data_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

fn config(data_dir: &Path) -> PrivateConfig {
    PrivateConfig { data_dir: data_dir.to_owned(), tuning: Tuning::Tests }
}

async fn start(data_dir: &Path) -> PrivatePostgres {
    PrivatePostgres::start(config(data_dir)).await.unwrap()
}

async fn setting(postgres: &PrivatePostgres, name: &str) -> String {
    value(postgres, &format!("SELECT current_setting('{name}')")).await
}

async fn value(postgres: &PrivatePostgres, sql: &str) -> String {
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
    row.get(0)
}

fn postmaster(data_dir: &Path) -> Option<Pid> {
    let file = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    Some(Pid::from_raw(file.lines().next()?.parse().unwrap()))
}

fn is_alive(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn wait_gone(process: Pid) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while is_alive(process) {
        assert!(Instant::now() < give_up, "process {process} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How the other process of [`another_process`] learns its folder.
const FOLDER: &str = "MWS_TEST_PRIVATE_FOLDER";

/// A second process that uses the folder's Postgres until it is killed or its stdin ends.
fn another_process(data_dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "private::body_of_another_process", "--nocapture"])
        .env(FOLDER, data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let ready = output.by_ref().lines().map_while(Result::ok).any(|line| line.ends_with("ready"));
    assert!(ready, "the other process did not start");
    // Kept open: the test runner in there writes its report.
    child.stdout = Some(output.into_inner());
    child
}

#[tokio::test]
async fn body_of_another_process() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test passes the folder")]
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let postgres = start(&PathBuf::from(folder)).await;
    println!("ready");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    postgres.release().await.unwrap();
}

#[tokio::test]
async fn a_fresh_folder_gets_a_cluster_that_only_its_owner_reaches() {
    let folder = data_folder();
    // Missing parents are made, and a name that needs quoting everywhere works.
    let data = folder.path().join("a, \"b\" c%/mws");
    let production = PrivateConfig { data_dir: data.clone(), tuning: Tuning::Production };
    let postgres = PrivatePostgres::start(production).await.unwrap();

    assert_eq!(setting(&postgres, "server_encoding").await, "UTF8");
    assert_eq!(setting(&postgres, "lc_collate").await, "C.UTF-8");
    assert_eq!(setting(&postgres, "fsync").await, "on");
    assert_eq!(setting(&postgres, "synchronous_commit").await, "on");
    assert_eq!(setting(&postgres, "full_page_writes").await, "on");
    assert_eq!(setting(&postgres, "listen_addresses").await, "");
    assert_eq!(value(&postgres, "SELECT current_user::text").await, "mws");
    assert_eq!(
        value(&postgres, "SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user").await,
        "false"
    );

    for private in ["postgres", "socket"] {
        let metadata = fs::metadata(data.join(private)).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o700, "{private}");
        assert_ne!(metadata.uid(), 0, "{private}");
        assert!(geteuid().is_root() || metadata.uid() == geteuid().as_raw());
    }
    assert_eq!(fs::metadata(data.join("postgres.log")).unwrap().mode() & 0o777, 0o600);

    // Ctrl-C at our terminal goes to our process group.
    let process = postmaster(&data).unwrap();
    assert_eq!(getpgid(Some(process)).unwrap(), process);
    assert_ne!(getpgid(Some(process)).unwrap(), getpgid(None).unwrap());

    postgres.release().await.unwrap();
    wait_gone(process);
    assert_eq!(postmaster(&data), None);
}

#[tokio::test]
async fn the_log_holds_no_statement_and_no_value() {
    let folder = data_folder();
    let postgres = start(folder.path()).await;
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    let refused = "CREATE TABLE t (secret text CHECK (secret = '')); INSERT INTO t VALUES ('hunter2')";
    sqlx::raw_sql(refused).execute(&mut connection).await.unwrap_err();
    postgres.release().await.unwrap();
    let log = fs::read_to_string(folder.path().join("postgres.log")).unwrap();
    assert!(log.contains("database system is ready"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn users_share_one_cluster_and_the_last_one_stops_it() {
    let folder = data_folder();
    let first = start(folder.path()).await;
    let process = postmaster(folder.path()).unwrap();
    let second = start(folder.path()).await;
    let mut third = another_process(folder.path());
    assert_eq!(postmaster(folder.path()), Some(process));
    assert_eq!(first.url(), second.url());

    first.release().await.unwrap();
    assert!(is_alive(process));
    // By drop, as a panic would.
    drop(second);
    assert!(is_alive(process));
    drop(third.stdin.take());
    assert!(third.wait().unwrap().success());
    wait_gone(process);
    assert_eq!(postmaster(folder.path()), None);
}

#[tokio::test]
async fn a_killed_user_leaves_the_cluster_to_the_next_one() {
    let folder = data_folder();
    let mut server = another_process(folder.path());
    let process = postmaster(folder.path()).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(is_alive(process));

    let next = start(folder.path()).await;
    assert_eq!(postmaster(folder.path()), Some(process));
    assert_eq!(value(&next, "SELECT current_database()::text").await, "mws");
    next.release().await.unwrap();
    wait_gone(process);
}

#[tokio::test]
async fn a_killed_postmaster_is_started_again() {
    let folder = data_folder();
    let first = start(folder.path()).await;
    value(&first, "WITH t AS (SELECT 1) SELECT 'x'").await;
    let process = postmaster(folder.path()).unwrap();
    kill(process, Signal::SIGKILL).unwrap();

    let second = start(folder.path()).await;
    let successor = postmaster(folder.path()).unwrap();
    assert_ne!(successor, process);
    assert_eq!(value(&second, "SELECT current_database()::text").await, "mws");
    drop(first);
    assert!(is_alive(successor));
    second.release().await.unwrap();
    wait_gone(successor);
}

#[tokio::test]
async fn a_pid_file_whose_number_went_to_another_process_stops_nobody() {
    let folder = data_folder();
    start(folder.path()).await.release().await.unwrap();
    // A process of the account that runs Postgres, which Postgres would take for the postmaster.
    let owner = fs::metadata(folder.path().join("postgres")).unwrap();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("600");
    if geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut sleeper, owner.uid());
    }
    let mut other = sleeper.spawn().unwrap();
    let file = folder.path().join("postgres/postmaster.pid");
    let stale = format!(
        "{}\n{}\n1\n5432\n{}\n\n      1         1\nready   \n",
        other.id(),
        folder.path().join("postgres").display(),
        folder.path().join("socket").display()
    );
    fs::write(&file, stale).unwrap();
    let result = PrivatePostgres::start(config(folder.path())).await;
    other.kill().unwrap();
    other.wait().unwrap();
    result.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn starters_wait_for_each_other() {
    let folder = data_folder();
    let mut other = {
        let path = folder.path().to_owned();
        let spawned = tokio::task::spawn_blocking(move || another_process(&path));
        let (first, second) = tokio::join!(start(folder.path()), start(folder.path()));
        let other = spawned.await.unwrap();
        assert_eq!(value(&first, "SELECT 'x'").await, "x");
        assert_eq!(value(&second, "SELECT 'x'").await, "x");
        // Leaving at once is as safe.
        let (first, second) = tokio::join!(first.release(), second.release());
        first.unwrap();
        second.unwrap();
        other
    };
    let process = postmaster(folder.path()).unwrap();
    assert!(is_alive(process));
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    wait_gone(process);
}

#[tokio::test]
async fn a_start_races_with_the_last_one_leaving() {
    let folder = data_folder();
    let mut current = start(folder.path()).await;
    for _ in 0..5 {
        let (left, next) = tokio::join!(current.release(), start(folder.path()));
        left.unwrap();
        assert_eq!(value(&next, "SELECT 'x'").await, "x");
        current = next;
    }
    current.release().await.unwrap();
    assert_eq!(postmaster(folder.path()), None);
}

#[tokio::test]
async fn a_half_made_cluster_is_made_again() {
    let folder = data_folder();
    start(folder.path()).await.release().await.unwrap();
    // As a start that was killed during initdb leaves it.
    fs::rename(folder.path().join("postgres"), folder.path().join("postgres.unfinished")).unwrap();
    fs::remove_file(folder.path().join("postgres.unfinished/PG_VERSION")).unwrap();

    start(folder.path()).await.release().await.unwrap();
    assert!(!folder.path().join("postgres.unfinished").exists());
}

#[tokio::test]
async fn a_cluster_of_another_major_version_is_refused_with_a_dump_command_that_works() {
    let folder = data_folder();
    let postgres = start(folder.path()).await;
    value(&postgres, "WITH t AS (SELECT 1) SELECT 'x'").await;
    postgres.release().await.unwrap();
    let version = folder.path().join("postgres/PG_VERSION");
    let ours = fs::read_to_string(&version).unwrap();
    let ours = ours.trim();
    fs::write(&version, "14\n").unwrap();

    let error = PrivatePostgres::start(config(folder.path())).await.unwrap_err();
    let PrivateError::OtherMajor { found, dump, .. } = &error else { panic!("{error}") };
    assert_eq!(*found, 14);
    assert!(error.to_string().contains(dump), "{error}");
    assert!(dump.contains("/usr/lib/postgresql/14/bin/pg_dumpall"), "{dump}");
    assert_eq!(postmaster(folder.path()), None);

    // The same command for the version that is here, where Debian puts it.
    fs::write(&version, format!("{ours}\n")).unwrap();
    if Path::new(&format!("/usr/lib/postgresql/{ours}/bin/pg_dumpall")).exists() {
        let dump = dump.replace("/postgresql/14/", &format!("/postgresql/{ours}/"));
        let output = Command::new("/bin/sh").args(["-c", &dump]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let saved = fs::read_to_string(folder.path().join("mws-postgres-14.sql")).unwrap();
        assert!(saved.contains("CREATE DATABASE mws "), "{saved}");
        assert_eq!(postmaster(folder.path()), None);
    }
}

#[tokio::test]
async fn a_folder_with_something_else_is_refused() {
    let folder = data_folder();
    fs::create_dir(folder.path().join("postgres")).unwrap();
    fs::write(folder.path().join("postgres/precious"), "x").unwrap();
    let error = PrivatePostgres::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, PrivateError::NotACluster(_) | PrivateError::NotOwner { .. }), "{error}");
    assert!(folder.path().join("postgres/precious").exists());
}

#[tokio::test]
async fn a_folder_on_a_closed_way_is_refused_for_root() {
    if !geteuid().is_root() {
        return;
    }
    let closed = TempDir::new().unwrap();
    fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
    let error = PrivatePostgres::start(config(&closed.path().join("mws"))).await.unwrap_err();
    let PrivateError::NotTraversable { path, .. } = &error else { panic!("{error}") };
    assert_eq!(path, &fs::canonicalize(closed.path()).unwrap());
    assert!(error.to_string().contains("chmod o+x"), "{error}");
}

#[tokio::test]
async fn a_failed_start_says_where_to_look_and_nothing_else() {
    let folder = data_folder();
    start(folder.path()).await.release().await.unwrap();
    fs::write(folder.path().join("postgres/postgresql.conf"), "hunter2 = 'x'\n").unwrap();
    let begun = Instant::now();
    let error = PrivatePostgres::start(config(folder.path())).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(15), "a broken configuration was tried again");
    let text = error.to_string();
    assert!(text.contains("postgres.log") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_long_path_gets_its_socket_elsewhere() {
    let folder = data_folder();
    let data = folder.path().join("x".repeat(100));
    let postgres = start(&data).await;
    assert_eq!(value(&postgres, "SELECT 'x'").await, "x");
    let url = postgres.url();
    let socket = PathBuf::from(url.split_once("?host=").unwrap().1.replace("%2F", "/"));
    assert!(!socket.starts_with(&data) && socket.join(".s.PGSQL.5432").as_os_str().len() < 100);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o700);
    postgres.release().await.unwrap();
    fs::remove_dir(socket).unwrap();
}
