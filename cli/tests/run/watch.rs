//! `--watch`: the program is kept as its source has it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::{HANDOVER, PROGRAM, Setup, World};
use handover_testing::processes::until;

/// At one moment, as a release is put there.
fn put(directory: &Path, name: &str, content: &str) {
    let part = directory.join("part");
    fs::write(&part, content).unwrap();
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(part, directory.join(name)).unwrap();
}

fn version(number: u32) -> String {
    format!("#!/usr/bin/env python3\n{}\n# {number}\n", fs::read_to_string(PROGRAM).unwrap())
}

#[test]
fn new_versions_come_by_themselves_and_bad_ones_go() {
    let prepare = |directory: &Path| {
        put(directory, "program", &version(1));
        put(directory, "source", &version(1));
    };
    let options =
        ["--watch", "{dir}/source", "--every", "1s", "--no-signature", "--any-format", "--ready-timeout", "30s"];
    let setup = Setup { options: &options, program: &["{dir}/program", "{dir}"], ..Setup::default() };
    let world = World::launch_with(setup, prepare);
    world.manager.wait("that it is ready", |told| told.has("READY=1"));
    let directory = world.directory.path();
    let installed = || fs::read_to_string(directory.join("program")).unwrap();
    let state = || -> Option<Value> {
        serde_json::from_slice(&fs::read(directory.join(".program.handover/state.json")).ok()?).ok()
    };
    assert_eq!(world.who().1, 1);

    put(directory, "source", &version(2));
    until("the second version", || (world.who().1 == 2).then_some(()));
    assert_eq!(installed(), version(2));

    // It ends at once: the one of before serves on, and is the file again.
    put(directory, "source", "#!/bin/sh\nexit 5\n");
    until("what is bad", || (state()?["bad"].as_array()?.len() == 1).then_some(()));
    assert_eq!((world.who().1, installed()), (2, version(2)));
    assert!(world.log().contains("exited with status 5"), "{}", world.log());

    put(directory, "source", &version(4));
    until("the fourth version", || (installed() == version(4) && world.who().1 > 3).then_some(()));

    // Why nothing can be looked for is said once, and looked for it is all the same.
    fs::remove_file(directory.join("source")).unwrap();
    until("that it says so", || world.log().contains("no new program can be looked for").then_some(()));
    put(directory, "source", &version(5));
    until("the fifth version", || (installed() == version(5)).then_some(()));
    assert_eq!(world.log().matches("no new program can be looked for").count(), 1, "{}", world.log());
    world.stop();
}

#[test]
fn what_cannot_be_watched_is_said() {
    let wrong: [(&[&str], &str); 5] = [
        (&["--key", "web.pub", "--", "/bin/web"], "--key is for --watch"),
        (&["--asset", "web", "--", "/bin/web"], "is for --watch"),
        (&["--watch", "/srv/web", "--", "/bin/web"], "--watch needs --key"),
        (&["--watch", "/srv/web", "--no-signature", "--", "web"], "write web with its path"),
        (
            &["--watch", "/srv/web", "--no-signature", "--directory", "/srv", "--", "./web"],
            "write the whole path of ./web",
        ),
    ];
    for (arguments, said) in wrong {
        let output = Command::new(HANDOVER).arg("run").args(arguments).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && words.contains(said), "{arguments:?}: {words}");
    }
}
