//! The sample agent's image, made from this tree alone: no registry, no base image, no Dockerfile.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps;

/// Brings `sh` and `rm`, which the server's files API and terminal run inside the container. Must be static.
const BUSYBOX: [&str; 5] =
    ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/bin/busybox.static", "/usr/bin/busybox.static"];
const APPLETS: [&str; 5] = ["cat", "ls", "mkdir", "rm", "sh"];
/// The agent is uid and gid 1000, and volumes take their owner from the image's folders.
const AGENT_FOLDERS: [&str; 2] = ["configs", "workspace"];
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nagent:x:1000:1000:agent:/workspace:/bin/sh\n";
const GROUP: &str = "root:x:0:\nagent:x:1000:\n";
const SETTINGS: [&str; 4] = ["USER 1000", "ENV PATH=/bin", "ENTRYPOINT [\"/agent\"]", "EXPOSE 8000"];
/// Holds the digest of what the image was made from.
const LABEL: &str = "mws.sample-agent.source";

/// Builds the agent and makes it the image `tag`; an image of the same content stays as it is.
pub(crate) fn build(tag: &str) -> Result<(), String> {
    let work = steps::root().join("target/agent-image");
    let agent = compile(&work)?;
    steps::step(&format!("Make the image {tag}"), || {
        let archive =
            pack(&work, &agent).map_err(|error| format!("cannot assemble the image: {error}"))??;
        let digest = digest(&work, &archive)?;
        let previous = inspect(tag, "{{.Id}}");
        if inspect(tag, &format!("{{{{index .Config.Labels {LABEL:?}}}}}")).as_deref() == Some(&digest) {
            steps::say(format_args!("    unchanged"));
            return Ok(());
        }
        import(tag, &archive, &digest)?;
        check(tag)?;
        if let Some(previous) = previous.filter(|id| inspect(tag, "{{.Id}}").as_ref() != Some(id)) {
            // Still in use by a container, or known by another name: then it stays.
            let _ = steps::output(Command::new("docker").args(["image", "rm", &previous]));
        }
        Ok(())
    })
}

/// A static binary, so that it can be the image's only program of ours.
fn compile(work: &Path) -> Result<PathBuf, String> {
    if std::env::consts::OS != "linux" {
        return Err("the agent's image can be built on Linux only".to_owned());
    }
    // Static linking needs the target to be named, also where it is the host.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = work.join("target");
    let arguments: [&OsStr; 9] = [
        "build".as_ref(),
        "--profile".as_ref(),
        "agent".as_ref(),
        "--package".as_ref(),
        "mws-sample-agent".as_ref(),
        "--target".as_ref(),
        target.as_ref(),
        "--target-dir".as_ref(),
        folder.as_ref(),
    ];
    let mut cargo = steps::cargo(arguments);
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "-C target-feature=+crt-static");
    steps::run("Build the sample agent", &mut cargo)?;
    Ok(folder.join(target).join("agent/sample-agent"))
}

/// The root filesystem as an archive whose bytes depend on its content alone. No root needed: the owners are
/// given to `tar`.
fn pack(work: &Path, agent: &Path) -> io::Result<Result<PathBuf, String>> {
    let Some(busybox) = BUSYBOX.map(Path::new).into_iter().find(|path| path.is_file()) else {
        return Ok(Err("busybox is missing: install busybox-static".to_owned()));
    };
    let root = work.join("rootfs");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for (folder, mode) in
        [("bin", 0o755), ("configs", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("workspace", 0o755)]
    {
        fs::create_dir_all(root.join(folder))?;
        fs::set_permissions(root.join(folder), Permissions::from_mode(mode))?;
    }
    for (from, to) in [(agent, "agent"), (busybox, "bin/busybox")] {
        fs::copy(from, root.join(to))?;
        fs::set_permissions(root.join(to), Permissions::from_mode(0o755))?;
    }
    for (file, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
        fs::write(root.join(file), text)?;
        fs::set_permissions(root.join(file), Permissions::from_mode(0o644))?;
    }
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }

    let archive = work.join("rootfs.tar");
    let add = |mode: &str, owner: u32, names: &[&str]| {
        let mut tar = Command::new("tar");
        tar.arg(mode)
            .arg("--file")
            .arg(&archive)
            .args(["--format=gnu", "--sort=name", "--mtime=@0", "--numeric-owner"])
            .args([format!("--owner={owner}"), format!("--group={owner}")])
            .arg("--directory")
            .arg(&root)
            .args(names);
        steps::output(&mut tar)
    };
    Ok(add("--create", 0, &["agent", "bin", "etc", "tmp"])
        .and_then(|_| add("--append", 1000, &AGENT_FOLDERS))
        .map(|_| archive))
}

/// Of the files and of the settings.
fn digest(work: &Path, archive: &Path) -> Result<String, String> {
    let settings = work.join("settings");
    fs::write(&settings, SETTINGS.join("\n"))
        .map_err(|error| format!("cannot write the settings: {error}"))?;
    let sums = steps::output(Command::new("sha256sum").arg(archive).arg(settings))?;
    let digests: Vec<&str> = sums.lines().filter_map(|line| line.split_whitespace().next()).collect();
    Ok(digests.join("-"))
}

/// What the engine has under `tag`; `None` when it has nothing.
fn inspect(tag: &str, format: &str) -> Option<String> {
    let text =
        steps::output(Command::new("docker").args(["image", "inspect", "--format", format, tag])).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn import(tag: &str, archive: &Path, digest: &str) -> Result<(), String> {
    let mut docker = Command::new("docker");
    docker.arg("import");
    let label = format!("LABEL {LABEL}={digest}");
    for change in SETTINGS.into_iter().chain([label.as_str()]) {
        docker.args(["--change", change]);
    }
    steps::output(docker.arg(archive).arg(tag)).map(drop)
}

/// A program that turns out not to be static would only show as a "not found" inside of the first container.
fn check(tag: &str) -> Result<(), String> {
    let mut docker = Command::new("docker");
    docker.args(["run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", tag, "-c"]);
    docker.arg("mkdir /workspace/x && rm -r /workspace/x; /agent; test $? -eq 1");
    steps::output(&mut docker).map(drop).map_err(|error| format!("the new image does not run: {error}"))
}
