//! `handover init` from outside: what it writes passes our own check and systemd's, and compiles.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panics and say what they did not run")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Where the library is.
const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn handover(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_handover")).args(arguments).current_dir(directory).output().unwrap();
    let Output { status, stdout, stderr } = output;
    (status.code(), format!("{}{}", String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap()))
}

fn init(directory: &Path, arguments: &[&str]) {
    let (code, said) = handover(directory, &[&["init"], arguments].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
}

/// Every choice once, most of them together with others.
const CHOICES: [&[&str]; 14] = [
    &["web"],
    &["web", "--notify-reload"],
    &["web", "--user"],
    &["web", "--user", "--notify-reload", "--unix", "%t/web.sock", "--no-hardening"],
    &["web", "--template"],
    &["web", "--template", "--unix", "/run/web/%i.sock", "--notify-reload"],
    &["web", "--tcp", "[::]:80", "--no-hardening"],
    &["web", "--unix", "@web", "--hardened"],
    &["web", "--udp", "127.0.0.1:5353", "--socket-name", "dns"],
    &["web", "--drain-timeout", "10m", "--warm-up", "2500ms"],
    &["web", "--template", "--user", "--rust"],
    &["web", "--wait"],
    &["web", "--wait", "--template", "--no-hardening"],
    &["web", "--wait", "--user", "--rust"],
];

fn units(choice: &[&str]) -> [String; 2] {
    let at = if choice.contains(&"--template") { "@" } else { "" };
    [format!("web{at}.socket"), format!("web{at}.service")]
}

#[test]
fn what_is_written_passes_our_check() {
    for choice in CHOICES {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), choice);
        let mut arguments = vec!["check", "--strict", "."];
        arguments.extend(["--target-version", if choice.contains(&"--notify-reload") { "253" } else { "252" }]);
        let (code, said) = handover(dir.path(), &arguments);
        assert!(code == Some(0) && said.contains("0 errors, 0 warnings in 2 units"), "{choice:?}: {said}");
        let (code, said) = handover(dir.path(), &["check", "--level", "info", &units(choice)[1]]);
        let remarks = said.matches(": info: ").count();
        assert!(code == Some(0) && remarks == said.matches("[HO312 ").count(), "{choice:?}: {said}");
    }
}

#[test]
fn systemd_finds_no_fault_in_what_is_written() {
    let version = Command::new("systemd-analyze").arg("--version").output();
    let Some(version) = version.ok().filter(|o| o.status.success()) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no systemd-analyze");
        return eprintln!("not run: there is no systemd-analyze");
    };
    let version: u32 = String::from_utf8_lossy(&version.stdout).split_whitespace().nth(1).unwrap().parse().unwrap();
    for choice in CHOICES.into_iter().filter(|c| version >= 253 || !c.contains(&"--notify-reload")) {
        let dir = tempfile::tempdir().unwrap();
        // Of ours there is none at its place.
        let choice: Vec<_> = choice.iter().map(|a| if *a == "--wait" { "--wait=/bin/true" } else { a }).collect();
        init(dir.path(), &[&choice[..], &["--exec", "/bin/true"]].concat());
        let [socket, service] = units(&choice).map(|unit| unit.replace("@.", "@8081."));
        let mut command = Command::new("systemd-analyze");
        if choice.contains(&"--user") {
            command.arg("--user").env("XDG_RUNTIME_DIR", dir.path());
        }
        let output = command.args(["verify", "--man=no", &socket, &service]).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // Other units of this machine are read too, and have faults of their own.
        let ours: Vec<_> = said.lines().filter(|l| l.contains("web")).collect();
        assert!(ours.is_empty(), "{choice:?}: {said}");
    }
}

#[test]
fn nothing_is_replaced_unless_told_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("web.service"), "mine").unwrap();
    let (code, said) = handover(dir.path(), &["init", "web", "--rust"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("already there: ./web.service; --force replaces"), "{said}");
    let files = || {
        let mut all: Vec<_> =
            fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!(
        (files(), fs::read_to_string(dir.path().join("web.service")).unwrap()),
        (vec!["web.service".into()], "mine".into())
    );
    init(dir.path(), &["web", "--rust", "--force"]);
    assert_eq!(files(), ["Cargo.toml", "src", "web.service", "web.socket"]);
    assert!(fs::read_to_string(dir.path().join("web.service")).unwrap().contains("Type=notify"));
}

#[test]
fn wrong_choices_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 12] = [
        (&["web", "--wait=handover"], "an absolute path"),
        (&["web", "--wait", "--notify-reload"], "cannot be used with"),
        (&["a b"], "no name for a unit"),
        (&["web.service"], "without its type"),
        (&["web", "--tcp", "localhost:80"], "systemd looks up no names"),
        (&["web", "--template", "--tcp", "80"], "put %i into it"),
        (&["web", "--tcp", "80", "--unix", "/x"], "cannot be used with"),
        (&["web", "--exec", "web"], "an absolute path"),
        (&["web", "--exec", "/opt/%x/web"], "no `%` but"),
        (&["web", "--drain-timeout", "584542046090y"], "at most a year"),
        (&["web.2", "--rust"], "a crate's too"),
        (&["web", "--udp", "53", "--rust"], "cannot be used with"),
    ];
    for (arguments, reason) in cases {
        let (code, said) = handover(dir.path(), &[&["init"], arguments].concat());
        assert!(code == Some(2) && said.contains(reason), "{arguments:?}: {code:?} {said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The example is that program: it is compiled with the others, and a scenario runs it under what
/// init writes.
#[test]
fn the_program_is_the_example() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["hello", "--rust"]);
    let program = fs::read_to_string(dir.path().join("src/main.rs")).unwrap();
    let example = fs::read_to_string(Path::new(TOP).join("examples/hello.rs")).unwrap();
    assert!(program == example, "examples/hello.rs is not what `handover init hello --rust` writes:\n{program}");
    let code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    assert!(program.lines().filter(code).count() <= 15, "{program}");
}

/// Other choices change nothing but a text and two numbers in it.
#[test]
fn the_program_fits_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let choice = ["web", "--rust", "--unix", "/run/web.sock", "--drain-timeout", "1500ms", "--socket-name", "main"];
    init(dir.path(), &choice);
    let program = fs::read_to_string(dir.path().join("src/main.rs")).unwrap();
    assert!(program.contains(".listen(\"main\", \"/run/web.sock\") // the name in web.socket"), "{program}");
    assert!(program.contains(".drain_timeout(Duration::from_millis(1500))"), "{program}");
    assert!(program.contains("service.serve_http(\"main\", router)?"), "{program}");
    assert!(!program.contains(".control()"), "{program}");
    init(dir.path(), &["web", "--rust", "--wait", "--force"]);
    let program = fs::read_to_string(dir.path().join("src/main.rs")).unwrap();
    assert!(program.contains("        .control() // for `handover reload`"), "{program}");
    init(dir.path(), &["web", "--rust", "--template", "--force"]);
    let program = fs::read_to_string(dir.path().join("src/main.rs")).unwrap();
    assert!(program.contains("\"127.0.0.1:8080\") // the name in web@.socket"), "`%i` is systemd's: {program}");
}

/// This version of the crate has the features that the manifest asks for.
#[test]
fn the_manifest_is_accepted_by_cargo() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["web", "--rust", "--wait"]);
    // The versions that are known to be here.
    fs::copy(Path::new(TOP).join("Cargo.lock"), dir.path().join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline"])
        .args(["--config", &format!("patch.crates-io.handover.path='{TOP}'")])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata = String::from_utf8(output.stdout).unwrap();
    let unused = String::from_utf8(output.stderr).unwrap();
    assert!(metadata.contains(r#""name":"web""#) && !unused.contains("was not used"), "{unused}");
}
