//! What a state costs, and what happens when there is no memory for it: each in a process of its
//! own.

use crate::manager::Manager;
use handover::state::{State, States};
use handover::systemd::fdstore::{FdStore, Names};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

/// Of the big state, unless set otherwise. 1024 with `--release` takes a minute and 3 GiB.
const MIB: usize = 40;

fn alone(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", &format!("memory::{test}"), "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    println!("{}", text.lines().filter(|line| line.contains("MiB")).collect::<String>());
}

#[test]
fn a_big_state_is_not_in_memory_twice() {
    alone("big_state");
}

#[test]
fn without_memory_the_value_before_stays() {
    alone("no_memory");
}

/// What the process has had in memory at most, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn memory(store: &FdStore) -> u64 {
    let file = File::from(store.get("handover.state.s").unwrap().pop().unwrap());
    file.metadata().unwrap().blocks() * 512
}

#[test]
#[ignore = "another test starts it in a process of its own"]
fn big_state() {
    let mib = std::env::var("HANDOVER_TEST_MIB").map_or(MIB, |mib| mib.parse().unwrap());
    let manager = Manager::old(4);
    let value: Vec<String> = (0..mib * 1024).map(|n| format!("{n:0>1023}")).collect();
    let store = manager.start(&Names::new());
    let state: State<Vec<String>> = States::new(store.clone()).state("s");
    let before = peak();
    let began = std::time::Instant::now();
    state.blocking_save(&value).unwrap();
    state.blocking_save(&value).unwrap();
    let saved = began.elapsed() / 2;
    assert!(peak() - before < 1024, "{} KiB more", peak() - before);
    // Each string has quotes and a comma, or bracket, and there is one bracket more.
    let json = (mib as u64) * 1024 * 1026 + 1;
    assert_eq!(memory(&store), 4096 + json.next_multiple_of(4096), "once");
    let began = std::time::Instant::now();
    let loaded = state.blocking_load().unwrap().value().unwrap();
    println!("{mib} MiB: saved in {saved:?}, loaded in {:?}", began.elapsed());
    assert!(loaded == value);
    let once = mib as u64 * 1024 * 11 / 10;
    assert!(peak() - before < once * 3 / 2, "{} KiB more", peak() - before);
}

#[test]
#[ignore = "another test starts it in a process of its own"]
fn no_memory() {
    let manager = Manager::old(4);
    let store = manager.start(&Names::new());
    let state: State<String> = States::new(store.clone()).state("s");
    state.blocking_save(&"a".repeat(10_000)).unwrap();
    // What a file may have from here on; writing beyond it fails.
    let limit = libc::rlimit { rlim_cur: 100_000, rlim_max: 100_000 };
    // SAFETY: it only reads `limit`; the process is this test's.
    let set = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit)
    };
    assert_eq!(set, 0);
    for _ in 0..3 {
        let error = state.blocking_update(|text| text.push_str(&"b".repeat(200_000))).unwrap_err();
        assert!(error.to_string().starts_with("the state \"s\" cannot be written: File too large"), "{error}");
        assert!(!error.is_invalid());
        assert!(state.blocking_save(&"c".repeat(200_000)).is_err());
        assert_eq!(memory(&store), 4096 + 12288, "nothing of it is left");
        assert_eq!(state.blocking_update(|text| text.len()).unwrap().result, 10_000);
        assert_eq!(state.blocking_load().unwrap().value().unwrap(), "a".repeat(10_000));
    }
}
