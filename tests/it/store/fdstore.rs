//! Putting, taking, and how much fits.

use crate::manager::Manager;
use handover::systemd::activation::Activation;
use handover::systemd::environment::Environment;
use handover::systemd::fdstore::{FdStore, Kept, Names};
use handover::systemd::notify::Notifier;
use nix::unistd::pipe;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn nulls(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| null()).collect()
}

fn inode(fd: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(fd).unwrap().st_ino
}

fn both() -> [fn(usize) -> Manager; 2] {
    [Manager::old, Manager::new_style]
}

#[test]
fn every_kind_comes_back_after_a_restart() {
    for manager in both() {
        let manager = manager(16);
        let names = Names::new().prefix("conn-").name("db").name("file").name("pipe").name("datagram");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connection, _) = listener.accept().unwrap();
        let (reader, mut writer) = pipe().map(|(r, w)| (File::from(r), File::from(w))).unwrap();
        let datagram = UnixDatagram::unbound().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();

        let store = manager.start(&names);
        assert_eq!(store.list(), []);
        assert_eq!(store.put("db", &[&listener]).unwrap(), Kept::Stored);
        assert_eq!(store.put("conn-1", &[&connection]).unwrap(), Kept::Stored);
        assert_eq!(store.put("file", &[&file]).unwrap(), Kept::Stored);
        assert_eq!(store.put("pipe", &[reader.as_fd()]).unwrap(), Kept::Stored);
        assert_eq!(store.put("datagram", &[&datagram]).unwrap(), Kept::Stored);
        let inode_of_listener = inode(&listener.into());
        drop((connection, reader, datagram, file, store));

        client.write_all(b"while nobody runs").unwrap();
        writer.write_all(b"too").unwrap();
        let store = manager.start(&names);
        let list = store.list();
        let seen: Vec<_> = list.iter().map(|e| (e.name.as_str(), e.fds, e.kept)).collect();
        assert_eq!(seen, ["conn-1", "datagram", "db", "file", "pipe"].map(|name| (name, 1, Kept::Stored)));
        assert_eq!(inode(&store.get("db").unwrap()[0]), inode_of_listener);
        let mut connection = TcpStream::from(store.take("conn-1").unwrap().pop().unwrap());
        let mut text = [0; 17];
        connection.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"while nobody runs");
        let mut three = [0; 3];
        File::from(store.get("pipe").unwrap().pop().unwrap()).read_exact(&mut three).unwrap();
        assert_eq!(&three, b"too");
        assert!(store.remove("file").unwrap());
        assert!(!store.remove("file").unwrap());
        assert!(store.take("nothing").unwrap().is_empty());
        assert_eq!(manager.names(), ["datagram", "db", "pipe"]);
    }
}

#[test]
fn an_open_file_is_put_once() {
    let mut manager = Manager::old(8);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    manager.sockets.push(("http".to_owned(), listener.try_clone().unwrap().into()));
    let (store, mut activation) = manager.start_with(&Names::new());
    let http = activation.listeners("http").unwrap();
    // What a .socket unit has passed it keeps itself.
    assert_eq!(store.put("http", &http).unwrap(), Kept::Stored);
    let one = null();
    assert_eq!(store.put("a", &[&one, &one]).unwrap(), Kept::Stored);
    assert_eq!(store.put("a", &[&one.try_clone().unwrap()]).unwrap(), Kept::Stored);
    assert_eq!(manager.names(), ["a"]);
    let error = store.put("b", &[&one]).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("is in the fd store as \"a\""), "{error}");
    // More under the same name is fine.
    assert_eq!(store.put("a", &[null()]).unwrap(), Kept::Stored);
    assert_eq!(manager.names(), ["a", "a"]);
    assert_eq!(store.list()[0].fds, 2);
    let error = store.put("a:b", &[null()]).unwrap_err();
    assert!(error.to_string().contains("systemd allows printable ASCII without ':'"), "{error}");
}

#[test]
fn more_than_one_datagram_holds() {
    for manager in both() {
        let manager = manager(400);
        let store = manager.start(&Names::new());
        let many = nulls(300);
        assert_eq!(store.put("many", &many).unwrap(), Kept::Stored);
        assert_eq!(manager.names().len(), 300);
        assert!(manager.log().iter().all(|(_, fds)| *fds <= 253));
        let store = manager.start(&Names::new().name("many"));
        assert_eq!(store.list()[0].fds, 300);
        assert_eq!(store.take("many").unwrap().len(), 300);
        assert!(manager.names().is_empty());
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    for manager in both() {
        let manager = manager(3);
        let store = manager.start(&Names::new());
        store.put("a", &nulls(2)).unwrap();
        let error = store.put("b", &nulls(2)).unwrap_err();
        assert!(error.is_store(), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("room for 1 of 2 more fds") && text.contains("FileDescriptorStoreMax= to 4 or more"),
            "{text}"
        );
        assert_eq!(manager.names(), ["a", "a"]);
        assert_eq!(store.list().len(), 1);
        // It fits exactly.
        assert_eq!(store.put("b", &[null()]).unwrap(), Kept::Stored);
        assert_eq!(manager.names(), ["a", "a", "b"]);
        let error = store.replace("b", &[null()]).unwrap_err();
        assert!(error.is_store() && error.to_string().contains("FileDescriptorStoreMax= to 4 or more"), "{error}");
        assert_eq!(manager.names(), ["a", "a", "b"]);
        store.remove("a").unwrap();
        assert_eq!(store.replace("b", &[null()]).unwrap(), Kept::Stored);
    }
}

#[test]
fn a_limit_that_was_raised_counts() {
    let manager = Manager::new_style(1);
    let store = manager.start(&Names::new());
    store.put("a", &[null()]).unwrap();
    assert!(store.put("b", &[null()]).unwrap_err().is_store());
    manager.state.lock().unwrap().max = 5;
    assert_eq!(store.put("b", &[null()]).unwrap(), Kept::Stored);
    assert_eq!(manager.names(), ["a", "b"]);
}

#[test]
fn without_a_store_the_process_keeps_it() {
    for manager in both() {
        let manager = manager(0);
        let store = manager.start(&Names::new());
        assert_eq!(store.put("a", &[null()]).unwrap(), Kept::HeldOnly);
        assert_eq!(store.replace("a", &[null()]).unwrap(), Kept::HeldOnly);
        assert_eq!(store.get("a").unwrap().len(), 1);
        let (asked, _) = store.entries().unwrap().pop().unwrap();
        assert_eq!(asked, "a~1~");
        // It asks once.
        let asked = manager.log().iter().filter(|(text, _)| text.starts_with("FDSTORE=1")).count();
        assert_eq!(asked, 1, "{:?}", manager.log());
        assert_eq!(store.take("a").unwrap().len(), 1);
    }
    let environment = Environment::default();
    let notifier = Notifier::from_env(&environment).unwrap();
    let mut activation = Activation::from_fds(Vec::new()).unwrap();
    let store = FdStore::open(&environment, &notifier, &mut activation, &Names::new()).unwrap();
    assert_eq!(store.put("a", &[null()]).unwrap(), Kept::HeldOnly);
    assert_eq!(store.sync().unwrap().kept, Kept::HeldOnly);
    assert!(store.remove("a").unwrap());
}

#[test]
fn polled_entries_go_when_they_hang_up() {
    let manager = Manager::old(4);
    let names = Names::new().name("polled").unpolled("kept");
    let store = manager.start(&names);
    let (reader, writer) = pipe().unwrap();
    let (reader2, writer2) = pipe().unwrap();
    store.put("polled", &[&writer]).unwrap();
    store.put_unpolled("kept", &[&writer2]).unwrap();
    drop((reader, reader2));
    assert_eq!(manager.names(), ["kept"]);
    // Its place is free again.
    store.put("more", &nulls(3)).unwrap();
    assert_eq!(store.list().len(), 2);
    let store = manager.start(&names);
    assert_eq!(store.list().iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(store.rejected(), []);
}

#[test]
fn the_next_generation_gets_it_directly() {
    for manager in both() {
        let manager = manager(8);
        let old = manager.start(&Names::new());
        old.put("a", &[null()]).unwrap();
        old.replace("b", &[null()]).unwrap();
        old.replace("b", &[null()]).unwrap();
        let inherit = |from: &FdStore| {
            let environment = manager.environment();
            let mut activation = Activation::from_fds(from.entries().unwrap()).unwrap();
            let notifier = Notifier::from_env(&environment).unwrap();
            FdStore::open(&environment, &notifier, &mut activation, &Names::new().prefix("")).unwrap()
        };
        let new = inherit(&old);
        new.standby();
        let before = manager.log().len();
        assert_eq!(new.put("c", &[null()]).unwrap(), Kept::HeldOnly);
        assert!(new.replace("a", &[null()]).unwrap_err().is_state(), "it is the old one's");
        assert_eq!(new.replace("c", &[null()]).unwrap(), Kept::HeldOnly);
        assert!(new.remove("b").unwrap());
        assert_eq!(manager.log().len(), before, "nobody listens to it yet");

        // What the old one does last goes over as well.
        let last = tempfile::tempfile().unwrap();
        old.replace("a", &[&last]).unwrap();
        old.freeze();
        assert!(old.replace("a", &[null()]).unwrap_err().is_state());
        assert!(old.put("d", &[null()]).unwrap_err().is_state());
        let a = old.entries().unwrap().into_iter().filter(|(name, _)| name.starts_with('a'));
        new.adopt(a.collect()).unwrap();
        let synced = new.sync().unwrap();
        assert_eq!((synced.kept, synced.pushed, synced.entries), (Kept::Stored, 1, 2));
        assert_eq!(inode(&new.get("a").unwrap()[0]), inode(&last.into()));
        assert_eq!(manager.names(), ["a~1", "c~1"]);
        drop(old);
        assert_eq!(new.replace("a", &[null()]).unwrap(), Kept::Stored);
        assert!(new.adopt(vec![("a~0".to_owned(), null())]).unwrap_err().is_protocol());
    }
}

#[test]
fn what_the_old_one_put_last_wins() {
    let manager = Manager::old(8);
    let (old, new) = (manager.start(&Names::new()), manager.start(&Names::new()));
    new.standby();
    new.replace("a", &[null()]).unwrap();
    new.replace("a", &[null()]).unwrap();
    let last = tempfile::tempfile().unwrap();
    old.put("a", &[&last]).unwrap();
    new.adopt(old.entries().unwrap()).unwrap();
    new.sync().unwrap();
    assert_eq!(inode(&new.get("a").unwrap()[0]), inode(&last.into()));
    assert_eq!(manager.names(), ["a"]);
}

#[test]
fn sync_brings_back_what_the_store_lost() {
    let manager = Manager::new_style(4);
    let store = manager.start(&Names::new());
    store.put("a", &nulls(2)).unwrap();
    manager.state.lock().unwrap().store.clear();
    store.sync().unwrap();
    assert_eq!(manager.names(), ["a", "a"]);
}

#[test]
fn names_of_an_older_version_are_removed() {
    let mut manager = Manager::old(8);
    manager.sockets.push(("web.socket".to_owned(), TcpListener::bind("127.0.0.1:0").unwrap().into()));
    manager.insert("old", null());
    manager.insert("old~3", null());
    manager.insert("mine", null());
    let (store, mut activation) = manager.start_with(&Names::new().name("mine"));
    assert_eq!(store.discard_unclaimed(&mut activation).unwrap(), ["old", "old~3", "web.socket"]);
    store.sync().unwrap();
    assert_eq!(manager.names(), ["mine"]);
}

#[tokio::test]
async fn the_async_calls_do_the_same() {
    let manager = Manager::new_style(4);
    let store = manager.start(&Names::new());
    assert_eq!(store.put_async("a", &[null()]).await.unwrap(), Kept::Stored);
    assert_eq!(store.replace_async("a", &[null()]).await.unwrap(), Kept::Stored);
    assert_eq!(store.sync_async().await.unwrap().entries, 1);
    assert_eq!(manager.names(), ["a~1"]);
    assert_eq!(store.take_async("a").await.unwrap().len(), 1);
    assert!(!store.remove_async("a").await.unwrap());
    assert!(manager.names().is_empty());
}
