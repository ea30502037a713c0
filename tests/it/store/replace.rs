//! Replacing: the process dies after each step, and the manager goes deaf after each datagram.

use crate::manager::Manager;
use handover::systemd::fdstore::{FdStore, Kept, Names};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

fn file(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn text(mut fds: Vec<OwnedFd>) -> String {
    let mut file = File::from(fds.pop().unwrap());
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

fn names() -> Names {
    Names::new().name("db")
}

fn managers() -> [Manager; 2] {
    [Manager::old(8), Manager::new_style(8)]
}

#[test]
fn at_every_moment_one_of_the_two_is_there() {
    for manager in managers() {
        let store = manager.start(&names()).timeout(Duration::from_millis(60));
        store.replace("db", &[file("0")]).unwrap();
        drop(store);
        let mut acknowledged = 0;
        for deaf_after in 0..7 {
            let store = manager.start(&names()).timeout(Duration::from_millis(60));
            let before: u32 = text(store.get("db").unwrap()).parse().unwrap();
            assert!(before >= acknowledged);
            manager.deaf_after(deaf_after);
            let new = before + 1;
            let replaced = store.replace("db", &[file(&new.to_string())]);
            drop(store);
            let store = manager.start(&names());
            let after: u32 = text(store.get("db").unwrap()).parse().unwrap();
            match replaced {
                Ok(Kept::Stored) => {
                    assert_eq!(after, new);
                    acknowledged = new;
                }
                Ok(kept) => panic!("{kept:?}"),
                Err(_) => assert!(after == before || after == new, "{before} {after}"),
            }
            store.sync().unwrap();
            assert_eq!(manager.names().len(), 1, "nothing is left behind");
        }
        assert!(acknowledged > 0);
    }
}

#[test]
fn after_a_failure_the_next_one_cleans_up() {
    for manager in managers() {
        let store = manager.start(&names()).timeout(Duration::from_millis(60));
        store.replace("db", &[file("old")]).unwrap();
        manager.deaf_after(0);
        let error = store.replace("db", &[file("lost")]).unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(text(store.get("db").unwrap()), "old");
        manager.state.lock().unwrap().deaf_after = None;
        assert_eq!(store.replace("db", &[file("new")]).unwrap(), Kept::Stored);
        assert_eq!(manager.names(), ["db~1"]);
        assert_eq!(text(manager.start(&names()).get("db").unwrap()), "new");
    }
}

#[test]
fn the_newest_of_several_wins_whatever_the_order() {
    for order in [["db", "db~9", "db~10"], ["db~10", "db~9", "db"], ["db~9", "db~10", "db"]] {
        let manager = Manager::old(8);
        for name in order {
            manager.insert(name, file(name));
        }
        let store = manager.start(&names());
        assert_eq!(text(store.get("db").unwrap()), "db~10");
        store.sync().unwrap();
        assert_eq!(manager.names(), ["db~10"]);
        store.replace("db", &[file("next")]).unwrap();
        assert_eq!(manager.names(), ["db~11"]);
    }
}

#[test]
fn the_same_files_again_change_nothing() {
    let manager = Manager::old(8);
    let store = manager.start(&names());
    let (a, b) = (file("a"), file("b"));
    store.put("db", &[&a, &b]).unwrap();
    assert_eq!(store.replace("db", &[&b, &a]).unwrap(), Kept::Stored);
    assert_eq!(manager.names(), ["db", "db"]);
    // systemd would drop the new push, and then the name.
    let error = store.replace("db", &[&b]).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("under that name already"), "{error}");
    assert_eq!(manager.names(), ["db", "db"]);
    store.replace("db", &[file("c")]).unwrap();
    assert_eq!(store.replace("db", &[&b]).unwrap(), Kept::Stored, "it is out again");
    assert_eq!(manager.names(), ["db~2"]);
}

#[test]
fn a_clone_is_the_same_store() {
    let manager = Manager::old(8);
    let store = manager.start(&names());
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store: FdStore = store.clone();
            std::thread::spawn(move || (0..10).for_each(|n| _ = store.replace("db", &[file(&n.to_string())]).unwrap()))
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(manager.names(), ["db~39"]);
}
