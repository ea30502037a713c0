//! State: what is loaded after which history.

use crate::manager::Manager;
use handover::state::{Loaded, STATE_LIMIT, State, States};
use handover::systemd::fdstore::{FdStore, Kept, Names};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Sessions {
    users: Vec<String>,
}

fn sessions(user: &str) -> Sessions {
    Sessions { users: vec![user.to_owned()] }
}

fn states(manager: &Manager) -> States {
    States::new(manager.start(&Names::new()))
}

fn state(manager: &Manager) -> State<Sessions> {
    states(manager).state("s")
}

/// What a saved state is made of.
fn bytes(manager: &Manager) -> Vec<u8> {
    let fds = manager.start(&Names::new()).get("handover.state.s").unwrap();
    let file = File::from(fds.into_iter().next().unwrap());
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

const AS_A_STATE: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_SEAL);

fn memfd(bytes: &[u8], seals: SealFlag) -> OwnedFd {
    let mut file = File::from(memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    file.write_all(bytes).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.into()
}

/// Loads what is made of these bytes, and says why it is damaged. The service goes on, and can save
/// again.
fn damaged(fd: OwnedFd) -> String {
    let manager = Manager::old(8);
    manager.insert("handover.state.s", fd);
    let state = state(&manager);
    let Loaded::Damaged { reason, aside } = state.blocking_load().unwrap() else { panic!("not damaged") };
    assert_eq!(aside.as_deref(), Some("handover.aside.s"));
    assert!(matches!(state.blocking_load().unwrap(), Loaded::None));
    state.blocking_save(&sessions("new")).unwrap();
    assert_eq!(manager.names(), ["handover.aside.s", "handover.state.s"]);
    reason
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    for manager in [Manager::old(4), Manager::new_style(4)] {
        let first = state(&manager);
        assert!(matches!(first.blocking_load().unwrap(), Loaded::None));
        assert_eq!(first.blocking_save(&sessions("a")).unwrap(), Kept::Stored);
        assert_eq!(state(&manager).blocking_load().unwrap().value(), Some(sessions("a")));
        let second = state(&manager);
        // Without having loaded it.
        assert_eq!(second.blocking_save(&sessions("b")).unwrap(), Kept::Stored);
        assert_eq!(second.blocking_save(&sessions("c")).unwrap(), Kept::Stored);
        assert_eq!(manager.names().len(), 1);
        assert_eq!(state(&manager).blocking_load().unwrap().value(), Some(sessions("c")));
        assert!(state(&manager).blocking_remove().unwrap());
        assert!(manager.names().is_empty());
    }
}

#[test]
fn an_older_version_is_told_or_migrated() {
    let manager = Manager::old(4);
    let old: State<Vec<u32>> = states(&manager).state("s");
    old.blocking_save(&vec![1, 2, 3]).unwrap();
    let state = state(&manager).version(2);
    let Loaded::Older { version: 1, mut reader } = state.blocking_load().unwrap() else { panic!() };
    let mut text = String::new();
    assert_eq!(reader.remaining(), 7);
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "[1,2,3]");
    let state = state.migrate(|version, reader| {
        assert_eq!(version, 1);
        let numbers: Vec<u32> = serde_json::from_reader(reader)?;
        Ok(Sessions { users: numbers.iter().map(u32::to_string).collect() })
    });
    let Loaded::Migrated { value, from: 1 } = state.blocking_load().unwrap() else { panic!() };
    assert_eq!(value.users, ["1", "2", "3"]);
    state.blocking_save(&value).unwrap();
    assert!(matches!(state.blocking_load().unwrap(), Loaded::Current(_)));

    let failing = state.version(3).migrate(|_, _| Err("no idea".into()));
    let Loaded::Damaged { reason, .. } = failing.blocking_load().unwrap() else { panic!() };
    assert_eq!(reason, "the state \"s\" is of version 2, and its migration failed: no idea");
}

#[test]
fn a_newer_version_and_another_type_are_told() {
    let manager = Manager::old(8);
    state(&manager).version(7).blocking_save(&sessions("a")).unwrap();
    let Loaded::Damaged { reason, .. } = state(&manager).version(2).blocking_load().unwrap() else { panic!() };
    assert_eq!(reason, "the state \"s\" is of version 7, of a newer program; this one knows version 2");
    state(&manager).blocking_save(&sessions("a")).unwrap();
    let Loaded::Damaged { reason, .. } = states(&manager).state::<u64>("s").blocking_load().unwrap() else { panic!() };
    assert!(reason.contains("is of version 1 but does not read as one (invalid type"), "{reason}");
}

#[test]
fn damage_is_named_and_put_aside() {
    let manager = Manager::old(4);
    state(&manager).blocking_save(&sessions("somebody")).unwrap();
    let good = bytes(&manager);
    let changed = |places: &[usize], to: u8| {
        let mut bytes = good.clone();
        places.iter().for_each(|at| bytes[*at] = to);
        memfd(&bytes, AS_A_STATE)
    };
    let starts = |fd: OwnedFd, why: &str| {
        let reason = damaged(fd);
        assert!(reason.starts_with(&format!("the state \"s\" {why}")), "{reason}");
    };
    starts(memfd(&good[..good.len() - 4], AS_A_STATE), "is truncated: 18 of 22 bytes are there");
    starts(memfd(&good[..100], AS_A_STATE), "is truncated: it has less than the 4096 bytes of its headers");
    starts(memfd(b"", AS_A_STATE), "is truncated: it has less");
    starts(changed(&[good.len() - 1], b'x'), "is damaged: its checksum differs");
    starts(changed(&[40, 2048 + 40], 9), "has a damaged header: its checksum differs");
    starts(changed(&[16], 9), "has format 9, of which this version of handover knows only 2");
    starts(memfd(&[b'x'; 5000], AS_A_STATE), "does not begin as one, but with \"xxxxxxxxxxxxxxxx\"");
    starts(memfd(&good, SealFlag::empty()), "is not sealed as one: it could shrink while it is read");
    starts(memfd(&good, SealFlag::all()), "is sealed against changes, which a state never is");
    starts(memfd(&good, AS_A_STATE | SealFlag::F_SEAL_GROW), "is sealed against changes");
    starts(File::open("/dev/null").unwrap().into(), "is not a memfd");
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    starts(socket.into(), "is not a memfd");

    let foreign = Manager::old(4);
    states(&foreign).state::<Sessions>("other").blocking_save(&sessions("x")).unwrap();
    let other = foreign.start(&Names::new()).get("handover.state.other").unwrap().pop().unwrap();
    starts(other, "is that of \"other\"");

    let Loaded::Damaged { reason, .. } = state(&manager).limit(10).blocking_load().unwrap() else { panic!() };
    assert_eq!(reason, "the state \"s\" has 22 bytes, over its limit of 10: raise State::limit");
}

#[test]
fn one_damaged_header_loses_nothing() {
    for place in [0, 2048] {
        for damage in [40, 0] {
            let manager = Manager::old(4);
            let first = state(&manager);
            first.blocking_save(&sessions("a")).unwrap();
            first.blocking_save(&sessions("b")).unwrap();
            let mut bytes = bytes(&manager);
            bytes[place + damage] ^= 0xff;
            let manager = Manager::old(4);
            manager.insert("handover.state.s", memfd(&bytes, AS_A_STATE));
            let state = state(&manager);
            assert_eq!(state.blocking_load().unwrap().value(), Some(sessions("b")));
            state.blocking_save(&sessions("c")).unwrap();
            let repaired = self::bytes(&manager);
            assert_eq!(repaired[..512], repaired[2048..2560]);
        }
    }
}

#[test]
fn of_two_the_newest_is_loaded() {
    let manager = Manager::old(4);
    let first = state(&manager);
    first.blocking_save(&sessions("a")).unwrap();
    let older = bytes(&manager);
    first.blocking_save(&sessions("b")).unwrap();
    let newer = bytes(&manager);
    for order in [[&older, &newer], [&newer, &older]] {
        let manager = Manager::old(8);
        order.into_iter().for_each(|bytes| manager.insert("handover.state.s", memfd(bytes, AS_A_STATE)));
        assert_eq!(state(&manager).blocking_load().unwrap().value(), Some(sessions("b")));
        state(&manager).blocking_save(&sessions("c")).unwrap();
        assert_eq!(manager.names(), ["handover.state.s~1"]);
        assert_eq!(state(&manager).blocking_load().unwrap().value(), Some(sessions("c")));
    }
}

#[test]
fn what_cannot_be_saved_leaves_the_one_before() {
    let manager = Manager::old(4);
    let good = state(&manager);
    good.blocking_save(&sessions("a")).unwrap();
    let error = good.clone().limit(10).blocking_save(&sessions("somebody with a long name")).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("longer than its limit of 10 bytes"), "{error}");
    let map: std::collections::BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
    let error = states(&manager).state("s").blocking_save(&map).unwrap_err();
    assert!(error.to_string().contains("cannot be written as JSON"), "{error}");
    assert_eq!(good.blocking_load().unwrap().value(), Some(sessions("a")));
    for bad in ["", "a:b", "a~b", &"x".repeat(201)] {
        assert!(states(&manager).state::<Sessions>(bad).blocking_load().unwrap_err().is_invalid(), "{bad}");
        assert!(
            states(&manager).state::<Sessions>(bad).blocking_save(&sessions("a")).unwrap_err().is_invalid(),
            "{bad}"
        );
    }
    const { assert!(STATE_LIMIT >= 1 << 30) };
}

#[test]
fn a_full_store_refuses_only_a_new_state() {
    let manager = Manager::old(1);
    let states = states(&manager);
    let state: State<Sessions> = states.state("s");
    state.blocking_save(&sessions("a")).unwrap();
    let before = manager.log().len();
    assert_eq!(state.blocking_save(&sessions("b")).unwrap(), Kept::Stored);
    assert_eq!(state.blocking_update(|value| value.users.push("c".to_owned())).unwrap().kept, Kept::Stored);
    assert_eq!(manager.log().len(), before, "the manager is told nothing");
    let error = states.state("other").blocking_save(&sessions("x")).unwrap_err();
    assert!(error.is_store() && error.to_string().contains("FileDescriptorStoreMax= to 2"), "{error}");
    assert_eq!(state.blocking_load().unwrap().value().unwrap().users, ["b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saves_at_the_same_time_keep_the_last_one_begun() {
    let manager = Manager::old(40);
    let states = states(&manager);
    // Of 40 the first creates the state, with the second at its heels or before it.
    for round in 0..80 {
        let name = format!("s{}", round / 2);
        let (a, b): (State<Sessions>, State<Sessions>) = (states.state(&name), states.state(&name));
        let (first, second) = (sessions(&format!("{round}a")), sessions(&format!("{round}b")));
        // Both are serialized in this order, and then put on two threads.
        let (x, y) = tokio::join!(a.save(&first), b.save(&second));
        assert_eq!((x.unwrap(), y.unwrap()), (Kept::Stored, Kept::Stored));
        assert_eq!(a.blocking_load().unwrap().value(), Some(second));
    }
    assert_eq!(manager.names().len(), 40);
}

#[test]
fn both_generations_read_it_at_once() {
    let manager = Manager::old(4);
    let first = state(&manager);
    let many = Sessions { users: (0..20_000).map(|n| n.to_string()).collect() };
    first.blocking_save(&many).unwrap();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (state, many) = (first.clone(), many.clone());
            std::thread::spawn(move || assert_eq!(state.blocking_load().unwrap().value(), Some(many)))
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn raw_memory_is_shared_and_stays() {
    let manager = Manager::old(4);
    let first = states(&manager);
    let raw = first.raw("index", 1 << 16).unwrap();
    assert!(raw.fresh);
    File::from(raw.fd).write_all_at(b"hello", 1000).unwrap();
    let second = states(&manager);
    let raw = second.raw("index", 1 << 16).unwrap();
    assert!(!raw.fresh);
    let file = File::from(raw.fd);
    let mut text = [0; 5];
    file.read_exact_at(&mut text, 1000).unwrap();
    assert_eq!(&text, b"hello");
    assert!(file.set_len(1).is_err(), "a mapping never faults");
    let error = second.raw("index", 1 << 10).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("has 65536 bytes, not 1024"), "{error}");
    assert!(second.remove_raw("index").unwrap());
    manager.insert("handover.raw.index", File::open("/dev/null").unwrap());
    assert!(states(&manager).raw("index", 10).unwrap().fresh);
    assert_eq!(manager.names(), ["handover.aside.index", "handover.raw.index"]);
}

#[test]
fn without_a_store_it_goes_over_directly() {
    let manager = Manager::old(0);
    let old = manager.start(&Names::new());
    let state: State<Sessions> = States::new(old.clone()).state("s");
    assert_eq!(state.blocking_save(&sessions("a")).unwrap(), Kept::HeldOnly);
    let new: FdStore = manager.start(&Names::new());
    new.adopt(old.entries().unwrap()).unwrap();
    let inherited: State<Sessions> = States::new(new).state("s");
    assert_eq!(inherited.blocking_load().unwrap().value(), Some(sessions("a")));
}
