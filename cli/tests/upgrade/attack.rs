//! Another user, who can write where the program is, or was quicker.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use handover::upgrade::{ProgramSource, Trust, Upgrade, UpgradeStep, Verdict};
use handover_testing::processes::until;
use nix::unistd::{Uid, chown};

use crate::parts::{Place, Signer, program, run, unless_busy, upgraded};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_directory_of_another,
    a_directory_above_of_another,
    a_planted_work_directory,
    the_work_directory_is_swapped,
    a_program_that_is_a_fifo,
    a_source_that_is_a_fifo,
    a_service_that_names_a_program_of_others,
];

/// Nobody on any machine.
const THEM: Uid = Uid::from_raw(4_242_424);

/// Only root can be attacked by another user, and make what is another's.
fn is_root() -> bool {
    Uid::effective().is_root()
}

#[track_caller]
fn not_where(place: &Place, says: &str) {
    let from = place.write("new", &program("1"));
    let error = run(&place.taken(place.unsigned(ProgramSource::file(from)))).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains(says), "{says}: {error}");
    assert_eq!(fs::read(&place.program).unwrap(), program("old"));
}

fn a_directory_of_another() {
    let place = Place::new();
    for mode in [0o777, 0o757] {
        fs::set_permissions(place.path(""), Permissions::from_mode(mode)).unwrap();
        not_where(&place, "chmod o-w");
    }
    assert!(!place.path(".web.handover").exists(), "nothing is made there");
    fs::set_permissions(place.path(""), Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        chown(&place.path(""), Some(THEM), None).unwrap();
        not_where(&place, "belongs to uid 4242424");
    }
}

fn a_directory_above_of_another() {
    let place = Place::new();
    let program_path = place.path("bin/web");
    fs::create_dir(place.path("bin")).unwrap();
    fs::write(&program_path, program("old")).unwrap();
    let from = place.write("new", &program("1"));
    fs::set_permissions(place.path(""), Permissions::from_mode(0o777)).unwrap();
    let upgrade = Upgrade::builder(&program_path, ProgramSource::file(from), Trust::unsigned());
    let upgrade = upgrade.reload_with(|| async { Verdict::Taken }).unwrap();
    let error = run(&upgrade).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("chmod o-w"), "{error}");
    // As /tmp: what is ours there stays ours.
    fs::set_permissions(place.path(""), Permissions::from_mode(0o1777)).unwrap();
    upgraded(&run(&upgrade));
}

/// Before they are looked at, directories would be made through it.
fn a_planted_work_directory() {
    let (place, victim) = (Place::new(), tempfile::tempdir().unwrap());
    fs::set_permissions(place.path(""), Permissions::from_mode(0o1777)).unwrap();
    symlink(victim.path(), place.path(".web.handover")).unwrap();
    not_where(&place, "only this user can write to");
    assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0, "nothing was made elsewhere");
    fs::remove_file(place.path(".web.handover")).unwrap();
    if is_root() {
        fs::create_dir(place.path(".web.handover")).unwrap();
        chown(&place.path(".web.handover"), Some(THEM), None).unwrap();
        not_where(&place, "only this user can write to");
    }
}

/// While the program is fetched, the work directory becomes another one, with links for all that is
/// about to be written: a file whose mode and owner would be changed, one that would be installed,
/// and a directory whose files would be removed.
fn the_work_directory_is_swapped() {
    let (place, victim) = (Place::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| victim.path().join(name);
    fs::write(at("secret"), "secret").unwrap();
    fs::set_permissions(at("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(at("precious")).unwrap();
    fs::write(at("precious/file"), "precious").unwrap();
    let from = place.write("new", &program("1"));
    let (hidden, aside) = (place.path(".web.handover"), place.path("aside"));
    let (secret, precious) = (at("secret"), at("precious"));
    let swap = move || {
        fs::rename(&hidden, &aside).unwrap();
        fs::create_dir(&hidden).unwrap();
        symlink(&secret, hidden.join("candidate")).unwrap();
        symlink(&precious, hidden.join("versions")).unwrap();
    };
    let upgrade = Upgrade::builder(&place.program, ProgramSource::file(&from), Trust::unsigned())
        .on_step(move |step| {
            if matches!(step, UpgradeStep::Fetched { .. }) {
                swap();
            }
        })
        .reload_with(|| async { Verdict::Taken })
        .unwrap();
    upgraded(&run(&upgrade));
    place.is("1");
    assert_eq!(fs::metadata(at("secret")).unwrap().mode() & 0o7777, 0o600, "the mode of another file was changed");
    assert_eq!(names(&at("precious")), ["file"], "files elsewhere were made or removed");
    let mut kept = [crate::parts::sha256(&program("1")), crate::parts::sha256(&program("old"))];
    kept.sort();
    assert_eq!(names(&place.path("aside/versions")), kept, "all of it is where it began");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn a_program_that_is_a_fifo() {
    let place = Place::new();
    fs::remove_file(&place.program).unwrap();
    nix::unistd::mkfifo(&place.program, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let from = place.write("new", &program("1"));
    let error = run(&place.taken(place.unsigned(ProgramSource::file(from)))).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("is no file"), "{error}");
}

/// Nobody ever opens the other end: the tool must end all the same.
fn a_source_that_is_a_fifo() {
    let place = Place::new();
    let fifo = place.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let from = place.write("new", &program("1"));
    fs::rename(&fifo, place.path("new.minisig")).unwrap();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let key = Signer::new().line();
    for (from, more) in [(&fifo, ["--no-signature"].as_slice()), (&from, &["--key", &key])] {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_handover"));
        tool.args(["upgrade", "--no-reload", "--fetch-timeout", "2s", "--program"]).arg(&place.program);
        let mut tool = tool.arg("--from").arg(from).args(more).stderr(Stdio::piped()).spawn().unwrap();
        let ended = until("the tool ends", || tool.try_wait().unwrap());
        let mut said = String::new();
        tool.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(ended.code() == Some(3) && said.contains("it is no regular file"), "{ended} {said}");
    }
    place.is("old");
}

/// A control interface of another user, as a service may make one, tells the pid of a process of
/// root: the program of that would be replaced.
const LIAR: &str = r#"
import json, os, socket, sys
at, pid = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(at)
listener.listen()
print("listening", flush=True)
while True:
    client, _ = listener.accept()
    while client.recv(65536):
        status = {"pid": int(pid), "generation": 1, "main_ms": 1, "state": "main"}
        client.sendall(json.dumps({"parameters": {"status": status}}).encode() + b"\0")
"#;

fn a_service_that_names_a_program_of_others() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let victim = place.path("victim");
    fs::copy("/bin/sleep", &victim).unwrap();
    let mut sleeping = unless_busy(|| Command::new(&victim).arg("1000").spawn());
    let theirs = place.path("theirs");
    fs::set_permissions(place.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(THEM), None).unwrap();
    let socket = theirs.join("handover.sock");
    let mut liar = Command::new("python3");
    liar.args(["-c", LIAR]).arg(&socket).arg(sleeping.id().to_string());
    let mut liar = liar.uid(THEM.as_raw()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(liar.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let from = place.write("new", &program("1"));
    let mut tool = Command::new(env!("CARGO_BIN_EXE_handover"));
    tool.args(["upgrade", "--no-reload", "--no-signature", "--from"]).arg(from).arg("--socket").arg(&socket);
    let output = tool.output().unwrap();
    for child in [&mut liar, &mut sleeping] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(3) && text.contains("it is not believed"), "{} {text}", output.status);
    assert_eq!(fs::read(&victim).unwrap(), fs::read("/bin/sleep").unwrap(), "another's program was replaced");
}
