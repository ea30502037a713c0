//! `--fix` breaks nothing that works, is done in one pass, and its exit code says so.

use std::fs;
use std::path::Path;

use crate::tool::{Run, check, check_in, json};

/// Forks, writes a pid file, and knows nothing of sd_notify.
const FORKING: &str = "[Service]
Type=forking
PIDFile=/run/d.pid
ExecStart=/usr/sbin/d --daemon
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
";
/// The one of an issue: reloads by a signal, and systemd waits for nothing.
const SIMPLE: &str = "[Service]\nExecStart=PROGRAM\nExecReload=/bin/kill -HUP $MAINPID\nRestart=on-failure\n";

/// What is written, without comments.
fn lines(run: &Run) -> Vec<&str> {
    run.stdout.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn nothing_is_written_for_a_program_that_may_not_speak_sd_notify() {
    let text = format!("# /lib/systemd/system/d.service\n{FORKING}");
    let run = check(&["--fix", "--level", "info", "-"], text.as_bytes());
    assert_eq!(lines(&run), [] as [&str; 0], "{}", run.stdout);
    assert_eq!(run.code, Some(0), "that is no error of such a service");
    for said in [
        "# Assumed: handover does not reload d.service, as nothing says so.",
        "[X-Handover]",
        "#   ExecStart=/usr/bin/handover run -- /usr/sbin/d --daemon\n",
    ] {
        assert!(run.stdout.contains(said), "{said}: {}", run.stdout);
    }
}

#[test]
fn what_is_assumed_is_said_and_is_not_that_it_speaks_sd_notify() {
    let text = format!("# /lib/systemd/system/d.service\n{FORKING}");
    let run = check(&["--fix", "--assume-handover", "-"], text.as_bytes());
    for kept in ["Type=", "PIDFile=", "ExecReload="] {
        assert!(!lines(&run).iter().any(|line| line.starts_with(kept)), "{}", run.stdout);
    }
    assert!(lines(&run).contains(&"KillMode=control-group"), "{}", run.stdout);
    for said in [
        "# Assumed, by --assume-handover: ",
        "Not assumed: that its program speaks sd_notify",
        "handover run -- /usr/sbin/d",
    ] {
        assert!(run.stdout.contains(said), "{said}: {}", run.stdout);
    }
    assert_eq!(run.code, Some(1), "the type is an error that only a person can mend");
    let said = format!("{text}[X-Handover]\n");
    let told = check(&["--fix", "-"], said.as_bytes());
    assert!(lines(&told).contains(&"Type=notify") && lines(&told).contains(&"PIDFile="), "{}", told.stdout);
    assert_eq!(told.code, Some(0));
}

#[test]
fn a_program_with_the_library_in_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("web");
    // It is the tool, which has the library in it too.
    fs::copy(env!("CARGO_BIN_EXE_handover"), &program).unwrap();
    let unit = dir.path().join("web.service");
    fs::write(&unit, SIMPLE.replace("PROGRAM", program.to_str().unwrap())).unwrap();
    let run = check(&["--format", "json", unit.to_str().unwrap()], b"");
    let report = json(&run);
    let hit = report["findings"].as_array().unwrap().iter().find(|f| f["id"] == "HO101").unwrap();
    assert_eq!((run.code, &hit["severity"]), (Some(1), &"error".into()));
    assert_eq!(hit["fix"], serde_json::json!({"section": "Service", "lines": ["Type=notify"]}));
    assert!(report["pairs"][0]["signs"][0].as_str().unwrap().ends_with("/web has handover in it"), "{report:#}");
    // The same unit with a program of another kind, or one that is not on this machine.
    for other in ["/bin/sh", "/nowhere/web"] {
        fs::write(&unit, SIMPLE.replace("PROGRAM", other)).unwrap();
        assert_eq!(check(&[unit.to_str().unwrap()], b"").code, Some(0), "{other}");
    }
    fs::write(&unit, SIMPLE.replace("PROGRAM", "/usr/bin/handover run -- /usr/bin/web")).unwrap();
    let run = check(&[unit.to_str().unwrap()], b"");
    assert!(run.code == Some(1) && run.stdout.contains("[HO101 type]"), "told by ExecStart=: {}", run.stdout);
}

/// Writes what `--fix` says, and asks again.
fn settles(directory: &Path, arguments: &[&str]) {
    let arguments = [&["--fix", "--level", "info"], arguments, &["."]].concat();
    let first = check_in(directory, &arguments, b"");
    assert!(matches!(first.code, Some(0 | 1)) && first.stderr.is_empty(), "{}", first.stderr);
    for part in first.stdout.split("# /etc/systemd/system/").skip(1) {
        let (path, text) = part.split_once('\n').unwrap();
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let second = check_in(directory, &arguments, b"");
    assert_eq!(lines(&second), [] as [&str; 0], "{}\nafter\n{}", second.stdout, first.stdout);
    assert_eq!(second.code, first.code, "what was left is left");
}

#[test]
fn one_pass_is_enough() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check/debian");
    let mut packages = 0;
    for package in fs::read_dir(all).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for arguments in
            [&[][..], &["--assume-handover"], &["--assume-handover", "--target-version", "252", "--stored", "99"]]
        {
            let dir = tempfile::tempdir().unwrap();
            for unit in fs::read_dir(package.path()).unwrap().flatten() {
                let mut text = fs::read_to_string(unit.path()).unwrap();
                // In the third round the units say so themselves, and everything is written.
                if arguments.len() > 1 {
                    text.push_str("\n[Unit]\nRestart=always\n[X-Handover]\n");
                }
                fs::write(dir.path().join(unit.file_name()), text).unwrap();
            }
            settles(dir.path(), arguments);
        }
        packages += 1;
    }
    assert!(packages > 20);
}
