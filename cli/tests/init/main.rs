//! `handover init` from outside: what it writes passes our own check and systemd's, and compiles.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panics and say what they did not run")]

mod readme;
mod stranger;

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
const CHOICES: [&[&str]; 15] = [
    &["web"],
    &["web", "--notify-reload"],
    &["web", "--user"],
    &["web", "--user", "--notify-reload", "--unix", "%t/web.sock", "--no-hardening"],
    &["web", "--template"],
    &["web", "--template", "--unix", "/run/web/%i.sock", "--notify-reload"],
    &["web", "--tcp", "[::]:80", "--no-hardening"],
    &["web", "--unix", "@web", "--hardened"],
    &["web", "--preserve"],
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
fn a_socket_stays_over_a_soft_reboot_where_systemd_can() {
    for (target, stays) in [("257", false), ("258", true), ("262", true)] {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &["web", "--preserve", "--target-version", target]);
        let socket = fs::read_to_string(dir.path().join("web.socket")).unwrap();
        for line in ["DefaultDependencies=no\n", "IgnoreOnIsolate=yes\n", "DeferTrigger=patient\n"] {
            assert_eq!(socket.contains(line), stays, "{target}: {socket}");
        }
        let (code, said) = handover(dir.path(), &["check", "--strict", "--target-version", target, "."]);
        assert!(code == Some(0) && said.contains("0 errors, 0 warnings in 2 units"), "{target}: {said}");
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
    let since = |choice: &[&str]| match choice {
        _ if choice.contains(&"--preserve") => 254,
        _ if choice.contains(&"--notify-reload") => 253,
        _ => 0,
    };
    for choice in CHOICES.into_iter().filter(|choice| version >= since(choice)) {
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

/// In an empty directory, as a stranger begins.
#[test]
fn the_program_builds_with_the_library_of_this_checkout() {
    for choice in [&["hello", "--rust"][..], &["hello", "--rust", "--wait"]] {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), choice);
        let manifest = fs::read_to_string(dir.path().join("Cargo.toml")).unwrap();
        let library = fs::canonicalize(TOP).unwrap();
        assert!(manifest.contains(&format!("handover = {{ path = {library:?}, ")), "{manifest}");
        assert!(!manifest.contains("[workspace]"), "there is none above: {manifest}");
        stranger::build(dir.path());
    }
}

/// Cargo refuses a package below a workspace that does not name it.
#[test]
fn below_a_workspace_the_program_is_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Cargo.toml"), "[workspace]\nmembers = []\n").unwrap();
    init(dir.path(), &["web", "--rust", "--dir", "a/web"]);
    let (read, said) = stranger::manifest_is_read(&dir.path().join("a/web"));
    assert!(read, "{said}");
    let manifest = fs::read_to_string(dir.path().join("a/web/Cargo.toml")).unwrap();
    fs::write(dir.path().join("a/web/Cargo.toml"), manifest.replace("[workspace]", "")).unwrap();
    let (read, said) = stranger::manifest_is_read(&dir.path().join("a/web"));
    assert!(!read && said.contains("believes it's in a workspace"), "is the line needed no more? {said}");
}

#[test]
fn the_library_is_where_it_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["web", "--rust", "--library", TOP]);
    for (arguments, reason) in [
        (&["web", "--library", TOP][..], "--rust"),
        (&["web", "--rust", "--force", "--library", "."], "is not that of the crate handover"),
        (&["web", "--rust", "--force", "--library", "none"], "No such file"),
    ] {
        let (code, said) = handover(dir.path(), &[&["init"], arguments].concat());
        assert!(code == Some(2) && said.contains(reason), "{arguments:?}: {code:?} {said}");
    }
}

/// What is printed can be typed: each line but systemctl's is, in a root of its own.
#[test]
fn the_next_steps_are_right_where_they_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let steps = |arguments: &[&str]| {
        let (code, said) = handover(dir.path(), &[&["init", "--force"], arguments].concat());
        assert_eq!(code, Some(0), "{said}");
        let (_, next) = said.split_once("\nNext:\n").expect("what comes next");
        next.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let tool = env!("CARGO_BIN_EXE_handover");
    let here = steps(&["web", "--rust"]);
    assert_eq!(
        here[..4],
        [
            "cargo build --release".to_owned(),
            "install -D ./target/release/web /usr/bin/web".to_owned(),
            format!("{tool} check ./web.service"),
            "install -D -m 644 -t /etc/systemd/system ./web.socket ./web.service".to_owned(),
        ]
    );
    let there = steps(&["web", "--rust", "--user", "--dir", "it's here"]);
    assert_eq!(there[0], r#"cargo build --release --manifest-path "it's here/Cargo.toml""#);
    assert_eq!(there[1], r#"install -D "it's here/target/release/web" ~/.local/bin/web"#);
    // Without the build, which another test does, and without systemd.
    fs::create_dir_all(dir.path().join("it's here/target/release")).unwrap();
    fs::write(dir.path().join("it's here/target/release/web"), "").unwrap();
    for line in there[1..].iter().filter(|line| !line.starts_with("systemctl")) {
        let mut command = Command::new("sh");
        command.args(["-euc", line]).env("HOME", dir.path()).current_dir(dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(dir.path().join(".config/systemd/user/web.service").exists() && dir.path().join(".local/bin/web").exists());

    // Where the units are in their place already there is nothing to copy.
    let mut command = Command::new(tool);
    command.args(["init", "web", "--user", "--force", "--dir", ".config/systemd/user"]);
    let output = command.env("HOME", dir.path()).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("enable --now web.socket web.service") && !said.contains("install "), "{said}");
}
