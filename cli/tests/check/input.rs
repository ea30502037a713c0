//! Files, drop-ins, templates, directories, stdin, names.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::tool::{check, check_in, ids, json};

const SOCKET: &str = "[Socket]\nListenStream=80\nFileDescriptorName=http\n";
const SERVICE: &str = "[Service]\nType=notify\nExecStart=/usr/bin/web\nKillMode=mixed\n[X-Handover]\n";

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn checked(directory: &Path, arguments: &[&str]) -> Value {
    let mut all = vec!["--format", "json", "--level", "info"];
    all.extend(arguments);
    let run = check_in(directory, &all, b"");
    assert!(matches!(run.code, Some(0 | 1)), "{}", run.stderr);
    json(&run)
}

fn found(report: &Value) -> Vec<Value> {
    report["findings"].as_array().unwrap().clone()
}

fn units(report: &Value) -> String {
    let pairs = report["pairs"].as_array().unwrap().iter();
    let names =
        |p: &Value| p["units"].as_array().unwrap().iter().map(|u| u.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    pairs.map(|p| names(p).join("+")).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_lies_beside_a_unit_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("web.service", SERVICE),
            ("web.socket", SOCKET),
            ("admin.socket", "[Socket]\nListenStream=81\nService=web.service\n"),
            ("other.socket", SOCKET),
            ("web.service.d/20-b.conf", "[Service]\nKillMode=process\n"),
            ("web.service.d/10-a.conf", "[Service]\nKillMode=control-group\n"),
            ("web.service.d/readme.txt", "[Service]\nKillMode=none\n"),
            ("more/web.service.d/30-c.conf", "[Service]\nKillMode=none\n"),
        ],
    );
    let report = checked(dir.path(), &["web.service"]);
    assert_eq!(units(&report), "web.service+web.socket+admin.socket");
    let kill_mode = |report: &Value| {
        let hit = found(report).into_iter().find(|f| f["id"] == "HO104").unwrap();
        format!("{} {}:{}", hit["message"].as_str().unwrap(), hit["file"].as_str().unwrap(), hit["line"])
    };
    assert_eq!(kill_mode(&report), "KillMode=process web.service.d/20-b.conf:2");
    assert_eq!(
        kill_mode(&checked(dir.path(), &["web.service", "--drop-ins", "more"])),
        "KillMode=none more/web.service.d/30-c.conf:2"
    );
    // By the socket it is found too, and named twice it is one.
    assert_eq!(units(&checked(dir.path(), &["web.socket", "web.service"])), "web.service+web.socket+admin.socket");
    let (absolute, here) = (dir.path().join("web.service"), Path::new("/"));
    assert_eq!(units(&checked(here, &[absolute.to_str().unwrap()])), "web.service+web.socket+admin.socket");
}

#[test]
fn fixes_are_for_the_units_that_were_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("web.service", SERVICE), ("web.socket", "[Socket]\nListenStream=80\nFlushPending=yes\n")]);
    let fix = |arguments: &[&str]| check_in(dir.path(), &[&["--fix"], arguments].concat(), b"").stdout;
    let service = fix(&["web.service"]);
    assert!(service.contains("\n[Service]\n") && !service.contains("[Socket]"), "{service}");
    assert!(service.ends_with("\n# web.socket has 2 findings too: handover check --fix web.socket\n"), "{service}");
    let socket = fix(&["web.socket"]);
    assert!(socket.contains("\nFlushPending=no\n") && !socket.contains("[Service]"), "{socket}");
    for both in [fix(&["."]), fix(&["web.service", "web.socket"])] {
        assert!(both.contains("[Service]") && both.contains("[Socket]") && !both.contains("too:"), "{both}");
    }
}

#[test]
fn masked_drop_ins_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("web.service", SERVICE), ("service.d/10-kill.conf", "[Service]\nKillMode=control-group\n")]);
    assert!(!ids(&found(&checked(dir.path(), &["web.service"]))).contains(&"HO104"));
    fs::create_dir(dir.path().join("web.service.d")).unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.path().join("web.service.d/10-kill.conf")).unwrap();
    assert!(ids(&found(&checked(dir.path(), &["web.service"]))).contains(&"HO104"));
}

#[test]
fn templates_and_their_instances() {
    let dir = tempfile::tempdir().unwrap();
    let service = "[Unit]\nRequires=web@%i.socket\n[Service]\nType=notify\nExecStart=/usr/bin/web %i\n[X-Handover]\n";
    let socket = "[Socket]\nListenStream=/run/web-%i.sock\nFileDescriptorName=http\n";
    write(
        dir.path(),
        &[
            ("web@.service", service),
            ("web@.socket", socket),
            ("web@blue.service.d/a.conf", "[Service]\nKillMode=mixed\n"),
            ("web@.service.d/a.conf", "[Service]\nKillMode=none\n"),
        ],
    );
    let template = checked(dir.path(), &["web@.service"]);
    assert_eq!(units(&template), "web@.service+web@.socket");
    assert!(!ids(&found(&template)).contains(&"HO207"), "the socket of the same instance is required");
    let instance = checked(dir.path(), &["web@blue.service"]);
    assert_eq!(units(&instance), "web@blue.service+web@blue.socket");
    assert!(!ids(&found(&instance)).contains(&"HO207"));
    let message = |report: &Value| found(report).iter().find(|f| f["id"] == "HO104").unwrap()["message"].clone();
    assert_eq!((message(&template), message(&instance)), ("KillMode=none".into(), "KillMode=mixed".into()));
}

#[test]
fn a_directory_without_aliases_and_masked_units() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("units/web.service", SERVICE),
            ("units/web.socket", SOCKET),
            ("units/x.timer", "[Timer]\n"),
            ("units/notes", ""),
        ],
    );
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.path().join("units").join(name)).unwrap();
    link("web.service", "alias.service");
    link("/dev/null", "masked.service");
    link("gone.service", "gone.service");
    assert_eq!(units(&checked(dir.path(), &["units"])), "web.service+web.socket");
}

#[test]
fn directories_are_looked_into_all_the_way_down() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("web.service", SERVICE),
            ("more/web.service", SERVICE),
            ("more/deep/web.service", SERVICE),
            ("more/deep/web.socket", SOCKET),
            ("more/web.service.d/a.conf", "[Service]\nKillMode=control-group\n"),
            ("more/web.service.wants/not.service", SERVICE),
            (".git/not.service", SERVICE),
        ],
    );
    std::os::unix::fs::symlink("..", dir.path().join("more/round")).unwrap();
    let report = checked(dir.path(), &["."]);
    assert_eq!(units(&report), "web.service web.service web.service+web.socket");
    let bad: Vec<_> =
        found(&report).iter().filter(|f| f["id"] == "HO104").map(|f| f["file"].as_str().unwrap().to_owned()).collect();
    assert_eq!(bad, ["./web.service", "./more/deep/web.service"], "units of two directories are not merged");
}

#[test]
fn an_alias_is_its_unit_and_its_drop_ins_count() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("web.service", SERVICE),
            ("www.service.d/20-a.conf", "[Service]\nKillMode=control-group\n"),
            ("www.service.d/30-b.conf", "[Service]\nKillMode=process\n"),
            ("web.service.d/30-b.conf", "[Service]\n"),
        ],
    );
    assert!(ids(&found(&checked(dir.path(), &["web.service"]))).contains(&"HO104"));
    std::os::unix::fs::symlink("web.service", dir.path().join("www.service")).unwrap();
    for asked in ["web.service", "www.service", "."] {
        let report = checked(dir.path(), &[asked]);
        assert_eq!(units(&report), "web.service", "{asked}");
        assert!(!ids(&found(&report)).contains(&"HO104"), "{asked}: of one file name that of the unit's own name wins");
    }
}

#[test]
fn files_of_others_with_the_same_ending_are_no_units() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("org.example.Web.service", "[D-BUS Service]\nName=org.example.Web\nExec=/usr/bin/web\n"),
            (
                "http.service",
                "<?xml version=\"1.0\"?>\n<!DOCTYPE service-group SYSTEM \"avahi-service.dtd\">\n<service-group/>\n",
            ),
            ("web.service", SERVICE),
        ],
    );
    assert_eq!(units(&checked(dir.path(), &["."])), "web.service");
    for (file, whose) in [("org.example.Web.service", "D-Bus"), ("http.service", "Avahi")] {
        let run = check_in(dir.path(), &[file], b"");
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""));
        assert!(run.stderr.contains(whose) && run.stderr.contains("no unit of systemd"), "{}", run.stderr);
    }
}

#[test]
fn what_ends_the_reading_of_a_unit_is_an_error() {
    let of = |text: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("d.service"), [b"[Service]\nExecStart=/bin/true\n", text].concat()).unwrap();
        let report = checked(dir.path(), &["d.service"]);
        let all = found(&report);
        all.iter().find(|f| f["id"] == "HO005").map(|f| format!("{}:{}", f["line"], f["message"].as_str().unwrap()))
    };
    assert_eq!(of(b"[Install\n").unwrap(), "3:error: a line that begins with `[` is no [Section]");
    assert_eq!(of(b"User=\xe4\n").unwrap(), "3:error: a line is not UTF-8");
    assert_eq!(
        of(&[b"User=", vec![b'x'; 1 << 20].as_slice()].concat()).unwrap(),
        "3:error: a line is longer than 1 MiB"
    );
    assert_eq!(of(b"# \xe4\n[Install]\n"), None);
    // Of a drop-in only that drop-in is lost, which is a warning.
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("d.service", "[Service]\nExecStart=/bin/true\n"), ("d.service.d/a.conf", "[Service\n")]);
    let report = checked(dir.path(), &["d.service"]);
    assert!(ids(&found(&report)).contains(&"HO001") && !ids(&found(&report)).contains(&"HO005"));
}

#[test]
fn a_mistyped_setting_is_known_again() {
    let text = SERVICE.replace("KillMode", "killMod").replace("[X-", "Restrat=always\n[X-");
    let found = crate::tool::findings(&text, &[]);
    let advice: Vec<_> =
        found.iter().filter(|f| f["id"] == "HO004").map(|f| f["fix"]["advice"].as_str().unwrap()).collect();
    assert_eq!(advice, ["Did you mean KillMode=?", "Did you mean Restart=?"]);
}

#[test]
fn what_cannot_be_read_is_said_and_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("web.conf", ""), ("empty/x", ""), ("web.service", SERVICE)]);
    let cases: [(&[&str], &str); 5] = [
        (&["./gone.service"], "./gone.service: there is no such file"),
        (&["web.conf"], "web.conf: a unit's file is called"),
        (&["empty"], "there is no .service and no .socket in empty"),
        (&["-"], "stdin: there is neither"),
        (&["web.service", "./gone.service"], "there is no such file"),
    ];
    for (arguments, message) in cases {
        let run = check_in(dir.path(), arguments, b"");
        assert_eq!(run.code, Some(3), "{arguments:?} {}", run.stderr);
        assert!(run.stderr.contains(message), "{}", run.stderr);
        assert_eq!(run.stdout.is_empty(), arguments.len() == 1, "{}", run.stdout);
    }
    // What could be read was looked at.
    assert!(check_in(dir.path(), &["web.service", "./gone.service"], b"").stdout.contains("HO104"));
    for wrong in
        [&[][..], &["--explain", "HO999"], &["--level", "loud", "x"], &["--list", "x"], &["--memory", "much", "x"]]
    {
        assert_eq!(check(wrong, b"").code, Some(2), "{wrong:?}");
    }
}

#[test]
fn what_is_no_unit_by_its_size_is_refused() {
    let run = check(&["-"], &vec![b'#'; 16 * 1024 * 1024 + 1]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""));
    assert!(run.stderr.contains("stdin is larger than 16777216 bytes"), "{}", run.stderr);
}

#[test]
fn carriage_returns_byte_order_marks_and_continuations() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\u{feff}[Service]\r\nType=notify\r\nExecStart=/usr/bin/web \\\r\n# why\r\n  --flag\r\nKillMode=\\\r\nmixed\r\n[X-Handover]\r\n";
    write(dir.path(), &[("web.service", text)]);
    let report = checked(dir.path(), &["web.service"]);
    let hit = found(&report).into_iter().find(|f| f["id"] == "HO104").unwrap();
    assert_eq!((hit["line"].as_u64(), hit["message"].as_str()), (Some(6), Some("KillMode=mixed")));
}

#[test]
fn random_bytes_and_pieces_of_units_never_crash_it() {
    // A small generator of our own: the seed makes a failure repeatable.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let pieces: Vec<&[u8]> = [
        "[Service]\n",
        "[Socket]\n",
        "[Unit]\n",
        "[X-Handover]\n",
        "# /a/web.service\n",
        "# /a/web.socket\n",
        "# /a/web@.service\n",
        "# /a/web.service.d/x.conf\n",
        "Type=",
        "notify",
        "\n",
        "\\\n",
        "ExecReload=",
        "ExecStart=",
        "/bin/kill -HUP $MAINPID",
        "/bin/sh -c ",
        "'",
        "\"",
        ";",
        " ",
        "%i",
        "%",
        "~",
        "SystemCallFilter=",
        "@process",
        "TimeoutStopSec=",
        "1min ",
        "99999999999999999999",
        "WatchdogSec=",
        "BindPaths=",
        "/",
        ":",
        "Sockets=",
        "web.socket",
        "Service=",
        "PropagatesReloadTo=web.service",
        "MemoryMax=",
        "10%",
        "infinity",
        "-",
        "+",
        "Ignore=",
        "FileDescriptorStoreMax=18446744073709551615",
        "StartLimitBurst=",
        "LimitNOFILE=",
        "\u{1b}[31m",
        "\0",
        "é",
    ]
    .into_iter()
    .map(str::as_bytes)
    .collect();
    for round in 0..150 {
        let mut text = if round % 3 == 0 {
            Vec::new()
        } else {
            b"# /a/web.service\n[Service]\n[X-Handover]\n[Service]\n".to_vec()
        };
        for _ in 0..random(80) {
            match round % 3 {
                0 => text.push(u8::try_from(random(256)).unwrap()),
                _ => text.extend_from_slice(pieces[random(pieces.len())]),
            }
        }
        for format in [&["--format", "sarif"][..], &["--fix"], &["--assume-handover"]] {
            let mut arguments = vec!["--level", "info", "-"];
            arguments.extend(format);
            let run = check(&arguments, &text);
            let shown = String::from_utf8_lossy(&text);
            assert!(matches!(run.code, Some(0 | 1 | 3)), "{:?} {}\n{shown:?}", run.code, run.stderr);
            assert!(!run.stderr.contains("panicked") && !run.stdout.contains('\u{1b}'), "{}\n{shown:?}", run.stderr);
        }
    }
}
