//! Entries that came in and are of no use: said, removed, never fatal.

use crate::manager::Manager;
use handover::systemd::fdstore::{Kept, Names};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

#[test]
fn odd_names_and_dead_peers_are_removed() {
    let manager = Manager::old(16);
    let (dead, peer) = UnixStream::pair().unwrap();
    for odd in ["handover.x~0", "handover.~x", "handover.state.s~99999999999999999999"] {
        manager.insert(odd, null());
    }
    manager.insert("handover.probe", null());
    manager.insert("foreign~x", null());
    manager.insert("conn", null());
    {
        let mut state = manager.state.lock().unwrap();
        // Put with FDPOLL=0 by an older version: systemd kept it.
        state.store[0].poll = false;
        state.store[0].fd = dead.into();
    }
    drop(peer);
    let (store, activation) = manager.start_with(&Names::new().name("conn"));
    let rejected = store.rejected();
    let why = |name: &str| rejected.iter().find(|r| r.name == name).map(|r| r.why.as_str());
    assert_eq!(why("conn"), Some("its other end is gone"));
    for odd in ["handover.x~0", "handover.~x", "handover.state.s~99999999999999999999"] {
        assert_eq!(why(odd), Some("its name is none that this version of handover gives"), "{odd}");
    }
    assert_eq!(rejected.len(), 4);
    assert_eq!(activation.names(), ["foreign~x"], "perhaps that of a .socket unit");
    assert_eq!(store.put("conn", &[null()]).unwrap(), Kept::Stored, "the name can be used again");
    assert_eq!(manager.names(), ["conn", "foreign~x"]);
}

#[test]
fn one_socket_twice_is_one() {
    let manager = Manager::old(16);
    let fd = null();
    manager.insert("twice", fd.try_clone().unwrap());
    manager.insert("twice", fd);
    let store = manager.start(&Names::new().name("twice"));
    assert_eq!(store.get("twice").unwrap().len(), 1);
}
