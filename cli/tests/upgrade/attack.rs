//! Another user, who can write where the program is, or was quicker.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use handover::upgrade::{ProgramSource, Trust, Upgrade, UpgradeStep, Verdict};
use nix::unistd::{Uid, chown};

use crate::parts::{Place, program, run, upgraded};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_directory_of_another,
    a_directory_above_of_another,
    a_planted_work_directory,
    the_work_directory_is_swapped,
    a_program_that_is_a_fifo,
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
