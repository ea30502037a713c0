//! Services that are not reloaded by handover are left in peace.

use crate::tool::{check, findings, json};

const NGINX: &str = "# /lib/systemd/system/nginx.service
[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStart=/usr/sbin/nginx
ExecReload=/usr/sbin/nginx -s reload
KillMode=mixed
";
/// A daemon that reads its configuration on SIGHUP and may be started by its socket.
const DAEMON: &str = "# /lib/systemd/system/d.service
[Service]
Type=notify
ExecStart=/usr/sbin/d
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
# /lib/systemd/system/d.socket
[Socket]
ListenStream=/run/d.sock
";

fn severities(text: &str, arguments: &[&str]) -> Vec<String> {
    let all = findings(text, arguments);
    let mut all: Vec<_> = all.iter().map(|f| f["severity"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_service_of_its_own_kind_gets_information_only() {
    assert_eq!(severities(NGINX, &[]), ["info"]);
    let run = check(&["-"], NGINX.as_bytes());
    assert_eq!(run.code, Some(0));
    assert!(
        run.stdout.starts_with("0 errors, 0 warnings in 1 unit; ") && run.stdout.contains("--assume-handover"),
        "{}",
        run.stdout
    );
}

#[test]
fn two_signs_make_warnings_and_three_make_errors() {
    assert_eq!(severities(DAEMON, &[]), ["info", "warning"]);
    let run = check(&["-"], DAEMON.as_bytes());
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.contains("signs of a rolling reload (d.socket, ExecReload= sends SIGHUP)"), "{}", run.stdout);
    assert_eq!(check(&["--strict", "-"], DAEMON.as_bytes()).code, Some(1));
    let three = DAEMON.replace("KillMode=mixed", "KillMode=mixed\nFileDescriptorStoreMax=8");
    assert_eq!(check(&["-"], three.as_bytes()).code, Some(1));
}

#[test]
fn a_daemon_whose_children_outlive_it_is_none() {
    assert_eq!(severities(&DAEMON.replace("mixed", "process"), &[]), ["info"]);
}

#[test]
fn what_is_assumed_or_said_counts_in_full() {
    assert_eq!(check(&["--assume-handover", "-"], NGINX.as_bytes()).code, Some(1));
    let said = NGINX.replace("[Service]", "[X-Handover]\n[Service]");
    assert_eq!(check(&["-"], said.as_bytes()).code, Some(1));
    let job = "[Service]\nType=oneshot\nExecStart=/bin/true\n";
    assert_eq!(check(&["--assume-handover", "-"], job.as_bytes()).code, Some(0), "a job is never reloaded");
}

#[test]
fn what_systemd_ignores_is_an_error_of_every_unit() {
    let misplaced = NGINX.replace("[Service]", "[Unit]\nRestart=always\n[Service]");
    let run = check(&["--format", "json", "-"], misplaced.as_bytes());
    assert_eq!((run.code, &json(&run)["errors"]), (Some(1), &1.into()));
}

#[test]
fn our_own_units_pass() {
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");
    for arguments in [
        &["--strict", units][..],
        &["--strict", "--target-version", "257", units],
        &["--strict", "--assume-handover", units],
    ] {
        let run = check(arguments, b"");
        assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    }
    let old = [format!("{units}/web.service"), format!("{units}/web.socket")];
    let run = check(&["--strict", "--target-version", "252", &old[0], &old[1]], b"");
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert!(run.stdout.contains("in 2 units"), "{}", run.stdout);
}
