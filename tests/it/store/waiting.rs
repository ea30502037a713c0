//! Who waits for a state: the async methods hold up nobody, and the others do not do it silently.

use crate::manager::Manager;
use handover::state::{Loaded, State, States};
use handover::systemd::fdstore::{Kept, Names};
use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than a wait that is said, and than many timers.
const HELD: Duration = Duration::from_millis(400);

fn state(manager: &Manager) -> State<u64> {
    States::new(manager.start(&Names::new())).state("n")
}

/// Holds the state on a thread of its own, until it is told.
fn hold(state: &State<u64>) -> Sender<()> {
    let (state, (go, stay), (begun, wait)) = (state.clone(), mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        state.blocking_update(|_| {
            begun.send(()).unwrap();
            let _ = stay.recv_timeout(crate::PATIENCE);
        })
    });
    wait.recv_timeout(crate::PATIENCE).unwrap();
    go
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged<R>(f: impl FnOnce() -> R) -> (R, String) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let result = tracing::subscriber::with_default(subscriber, f);
    (result, log.text())
}

/// One thread: if it waited, nothing would let the other go.
#[tokio::test]
async fn the_only_thread_of_a_runtime_goes_on() {
    let manager = Manager::old(4);
    let state = state(&manager);
    let go = hold(&state);
    let release = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        go.send(()).unwrap();
    };
    let (updated, refused, (), read) =
        tokio::join!(state.update(|n| *n += 1), state.try_update(|_| Err::<(), _>("no")), release, state.read(|_| ()),);
    assert_eq!(updated.unwrap().kept, Kept::Stored);
    assert_eq!(refused.unwrap().unwrap_err(), "no");
    read.unwrap();
    assert_eq!(state.load().await.unwrap().value(), Some(1));
    assert_eq!(state.save(&7).await.unwrap(), Kept::Stored);
    assert_eq!(state.load().await.unwrap().value(), Some(7));
    assert!(state.remove().await.unwrap());
    assert!(matches!(state.load().await.unwrap(), Loaded::None));
}

#[test]
fn a_runtimes_thread_that_waits_long_is_logged_once() {
    let manager = Manager::old(4);
    let state = state(&manager);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let wait = |in_runtime: bool| {
        let go = hold(&state);
        let timer = std::thread::spawn(move || {
            std::thread::sleep(HELD);
            let _ = go.send(());
        });
        let update = || state.blocking_update(|n| *n += 1).unwrap();
        let ((), text) = logged(|| {
            let _entered = in_runtime.then(|| runtime.enter());
            update();
        });
        timer.join().unwrap();
        text
    };
    assert_eq!(wait(false), "", "a thread of its own may wait");
    let said = wait(true);
    let expected = "has been waiting for the state \"n\"";
    assert!(said.contains("WARN") && said.contains(expected) && said.contains("without `blocking_`"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(wait(true), "", "once is enough");
    assert_eq!(state.blocking_load().unwrap().value(), Some(3));
}
