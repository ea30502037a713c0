//! What somebody else wrote, to do harm: to the terminal, to the memory, to the time.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::tool::{check, check_in, json};

/// Nothing that a terminal obeys, or that turns the direction of the text.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| {
        c == '\n'
            || !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c) && !('\u{2066}'..='\u{2069}').contains(&c)
    })
}

#[test]
fn paths_and_texts_do_not_speak_to_the_terminal() {
    let evil = "a\u{1b}]0;owned\u{7}\u{202e}b\u{9b}31m";
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join(evil);
    fs::create_dir(&below).unwrap();
    let unit = format!(
        "[Service]\nType=notify\nExecStart=/usr/bin/{evil}\nKillMode=mixed\n{evil}=1\n{evil}\n[{evil}]\nUser={evil}\n[X-Handover]\nIgnore={evil}\n"
    );
    fs::write(below.join("web.service"), &unit).unwrap();
    fs::write(below.join("other.service"), format!("[D-BUS Service]\nName={evil}\n")).unwrap();
    let gone = format!("./{evil}/gone.service");
    let odd = format!("./{evil}/other.service");
    for arguments in [
        &["."][..],
        &["--fix", "--level", "info", "."],
        &["--fix", "--assume-handover", "."],
        &["--format", "json", "."],
        &["--format", "sarif", "."],
        &[&gone],
        &[&odd],
        &[evil],
        &["--drop-ins", evil, "."],
        &["--explain", evil],
    ] {
        let run = check_in(dir.path(), arguments, b"");
        assert!(is_plain(&run.stdout) && is_plain(&run.stderr), "{arguments:?}: {:?} {:?}", run.stdout, run.stderr);
        assert!(!run.stdout.is_empty() || !run.stderr.is_empty());
    }
    // For a program the values are what they are.
    let report = json(&check_in(dir.path(), &["--format", "json", "."], b""));
    assert!(
        report["findings"].as_array().unwrap().iter().all(|f| f["file"].as_str().unwrap().contains(evil)),
        "{report:#}"
    );
    // A name that is not even UTF-8.
    let name = std::ffi::OsStr::from_bytes(b"\xff\x1b[31m.service");
    fs::write(dir.path().join(name), "[Service]\n").unwrap();
    let run = check_in(dir.path(), &["."], b"");
    assert!(is_plain(&run.stdout) && is_plain(&run.stderr));
}

/// Runs it with so much address space; the code, what it said, how long it took.
fn bounded(mebibytes: u32, arguments: &str, input: &[u8]) -> (Option<i32>, usize, Duration) {
    let script = format!("ulimit -v {}; exec \"$0\" check {arguments}", mebibytes * 1024);
    let started = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_handover")])
        .env("TOKIO_WORKER_THREADS", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (output.status.code(), output.stdout.len() + output.stderr.len(), started.elapsed())
}

#[test]
fn junk_takes_neither_memory_nor_output() {
    // The most that is read; for the kinds that were not the worst, a part of it.
    const FULL: usize = 16 * 1024 * 1024;
    const PART: usize = FULL / 8;
    let fill = |size: usize, line: &[u8]| {
        let mut text = b"[Service]\nExecStart=/bin/true\n".to_vec();
        text.extend(line.iter().cycle().take((size - text.len()) / line.len() * line.len()));
        text
    };
    for (what, text) in [
        ("lines without an equals sign", fill(FULL, b"a\n")),
        ("lines without a name", fill(PART, b"=\n")),
        ("settings that nobody knows", fill(FULL, b"a=\n")),
        ("settings in the wrong section", fill(PART, b"After=a\n")),
        ("values that cannot be read", fill(PART, b"Type=a\n")),
        ("empty settings", fill(PART, b"Type=\n")),
        ("sections", fill(PART, b"[a]\n[b]\n")),
        ("one line", fill(PART, b"a")),
        ("line ends", fill(PART, b"\n")),
        ("zeros", fill(PART, b"\0")),
    ] {
        let (code, said, _) = bounded(800, "--assume-handover --level info -", &text);
        assert!(matches!(code, Some(0 | 1)), "{what}: {code:?}");
        assert!(said < 1024 * 1024, "{what}: {said} bytes of output");
    }
}

#[test]
fn many_units_are_not_looked_at_two_by_two() {
    let mut text = String::new();
    for n in 0..4_990 {
        text.push_str(&format!(
            "# /etc/u{n}.service\n[Unit]\nPropagatesReloadTo=u{}.service\n[Service]\nExecStart=/bin/true\nSockets=s{n}.socket\n# /etc/s{n}.socket\n[Socket]\nListenStream={n}\n",
            (n + 1) % 4_990
        ));
    }
    let (code, _, took) = bounded(800, "--format json -", text.as_bytes());
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(60), "{took:?}");
    let most = (0..10_001).map(|n| format!("# /etc/u{n}.service\n[Service]\n")).collect::<String>();
    let run = check(&["-"], most.as_bytes());
    assert!(run.code == Some(3) && run.stderr.contains("more than 10000 units"), "{:?} {}", run.code, run.stderr);
}
