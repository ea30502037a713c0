//! One memory, changed in place: by threads, by two generations, by two versions of a program.

use crate::manager::Manager;
use handover::state::{Loaded, State, States};
use handover::systemd::activation::Activation;
use handover::systemd::fdstore::{FdStore, Kept, Names};
use handover::systemd::notify::Notifier;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Starts the next generation, which is not main yet.
fn next(manager: &Manager, old: &FdStore) -> FdStore {
    let environment = manager.environment();
    let mut activation = Activation::from_fds(old.entries().unwrap()).unwrap();
    let notifier = Notifier::from_env(&environment).unwrap();
    let new = FdStore::open(&environment, &notifier, &mut activation, &Names::new()).unwrap();
    new.standby();
    new
}

fn counter(store: &FdStore) -> State<u64> {
    States::new(store.clone()).state("n")
}

fn add(state: &State<u64>) -> u64 {
    state
        .blocking_update(|n| {
            *n += 1;
            *n
        })
        .unwrap()
        .result
}

#[test]
fn generations_change_the_same_memory_in_every_mode() {
    let manager = Manager::new_style(4);
    let old = manager.start(&Names::new());
    let first = counter(&old);
    let made = first.blocking_update(|n| *n = 10).unwrap();
    assert_eq!((made.result, made.kept), ((), Kept::Stored));
    let new = next(&manager, &old);
    let second = counter(&new);
    let told = manager.log().len();
    assert_eq!((add(&second), add(&first), add(&second)), (11, 12, 13));
    assert_eq!(second.blocking_update(|_| ()).unwrap().kept, Kept::Stored, "the manager has it");
    old.freeze();
    assert_eq!((add(&first), add(&second), add(&first)), (14, 15, 16));
    first.blocking_save(&20).unwrap();
    assert_eq!((second.blocking_read(|n| *n).unwrap(), first.blocking_read(|n| *n).unwrap()), (20, 20));
    assert_eq!(manager.log().len(), told, "without a message");
    let error = States::new(old.clone()).state::<u64>("other").blocking_update(|_| ()).unwrap_err();
    assert!(error.is_state() && error.to_string().contains("belongs to the next generation"), "{error}");
    assert!(matches!(States::new(old.clone()).state::<u64>("other").blocking_load().unwrap(), Loaded::None));
    new.sync().unwrap();
    assert_eq!((add(&second), add(&first)), (21, 22));
    drop((old, new, first, second));
    assert_eq!(add(&counter(&manager.start(&Names::new()))), 23);
    assert_eq!(manager.names(), ["handover.state.n"]);
}

#[test]
fn one_made_in_standby_is_pushed_later() {
    let manager = Manager::new_style(4);
    let old = manager.start(&Names::new());
    let new = next(&manager, &old);
    let state = counter(&new);
    assert_eq!(state.blocking_update(|n| *n = 5).unwrap().kept, Kept::HeldOnly);
    assert_eq!(state.blocking_update(|n| *n += 1).unwrap().kept, Kept::HeldOnly);
    assert!(manager.names().is_empty());
    new.sync().unwrap();
    assert_eq!(state.blocking_update(|n| *n += 1).unwrap().kept, Kept::Stored);
    drop((old, new, state));
    assert_eq!(counter(&manager.start(&Names::new())).blocking_load().unwrap().value(), Some(7));
}

#[test]
fn what_is_prepared_is_one_for_both() {
    let manager = Manager::new_style(4);
    let old = manager.start(&Names::new());
    let states = States::new(old.clone());
    let first = states.state::<u64>("n");
    let _odd = states.state::<u64>("a:b");
    states.prepare().unwrap();
    states.prepare().unwrap();
    assert!(matches!(first.blocking_load().unwrap(), Loaded::None));
    assert!(!first.blocking_remove().unwrap(), "no value");
    states.prepare().unwrap();
    let new = next(&manager, &old);
    let second = counter(&new);
    assert_eq!((add(&second), add(&first), add(&second)), (1, 2, 3));
    new.adopt(old.entries().unwrap()).unwrap();
    assert_eq!((add(&second), add(&first)), (4, 5));
    // Without: that of the previous generation counts.
    let (a, b) = (States::new(old.clone()).state::<u64>("late"), States::new(new.clone()).state::<u64>("late"));
    assert_eq!((add(&a), add(&b), add(&b), add(&b)), (1, 1, 2, 3));
    new.adopt(old.entries().unwrap()).unwrap();
    assert_eq!((add(&b), add(&a)), (2, 3));
}

#[test]
fn a_panic_or_an_error_saves_nothing() {
    let manager = Manager::old(4);
    let store = manager.start(&Names::new());
    let state = counter(&store);
    for _ in 0..2 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            state.blocking_update(|n| {
                *n += 100;
                panic!("as it was asked to");
            })
        }));
        assert!(panicked.is_err());
        let refused = state.blocking_try_update(|n| {
            *n += 1000;
            Err::<(), _>("no")
        });
        assert_eq!(refused.unwrap(), Err("no"));
        let current = state.blocking_load().unwrap().value().unwrap_or_default();
        assert_eq!(add(&state), current + 1);
    }
    // Another thread, and another generation, go on as well.
    let other = state.clone();
    assert_eq!(std::thread::spawn(move || add(&other)).join().unwrap(), 3);
    assert_eq!(add(&counter(&next(&manager, &store))), 4);

    let list: State<Vec<String>> = States::new(store).state("list");
    let list = list.limit(20);
    list.blocking_update(|list| list.push("short".to_owned())).unwrap();
    let error = list.blocking_update(|list| list.push("much too long for it".to_owned())).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("longer than its limit of 20 bytes"), "{error}");
    list.blocking_update(|list| assert_eq!(*list, ["short"])).unwrap();
    let error = list.blocking_save(&vec!["much too long for it".to_owned()]).unwrap_err();
    assert!(error.is_invalid(), "{error}");
    assert_eq!(list.blocking_load().unwrap().value().unwrap(), ["short"]);
}

#[test]
fn an_update_within_itself_ends_in_time() {
    let manager = Manager::old(4);
    let states = States::new(manager.start(&Names::new())).lock_timeout(Duration::from_millis(50));
    let (state, again): (State<u64>, State<u64>) = (states.state("n"), states.state("n"));
    let inner = state.blocking_update(|n| {
        *n = 1;
        again.blocking_update(|n| *n += 1).unwrap_err()
    });
    let error = inner.unwrap().result;
    assert!(error.is_timeout() && error.to_string().contains("\"n\" is in use in this process"), "{error}");
    assert_eq!(add(&state), 2);
}

#[test]
fn threads_take_turns() {
    let manager = Manager::old(4);
    let states = States::new(manager.start(&Names::new()));
    let shared: State<u64> = states.state("n");
    let workers: Vec<_> = (0..6)
        .map(|n| {
            // Clones, and handles of their own.
            let state = if n % 2 == 0 { shared.clone() } else { states.state("n") };
            std::thread::spawn(move || (0..200).for_each(|_| _ = add(&state)))
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(shared.blocking_read(|n| *n).unwrap(), 1200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_update_is_done() {
    let manager = Manager::old(4);
    let state = counter(&manager.start(&Names::new()));
    assert_eq!(state.update(|n| *n += 1).await.unwrap().kept, Kept::Stored);
    let (begun, wait) = std::sync::mpsc::channel();
    let (go, stay) = std::sync::mpsc::channel();
    let update = state.update(move |n| {
        begun.send(()).unwrap();
        stay.recv().unwrap();
        *n += 1;
    });
    tokio::select! {
        biased;
        _ = update => panic!("it waits for us"),
        () = std::future::ready(()) => {}
    }
    wait.recv_timeout(crate::PATIENCE).unwrap();
    go.send(()).unwrap();
    // It waits for its turn.
    let read = state.clone();
    assert_eq!(tokio::task::spawn_blocking(move || read.blocking_read(|n| *n)).await.unwrap().unwrap(), 2);
    let panicking = state.clone();
    let task = tokio::spawn(async move { panicking.update(|_| panic!("as it was asked to")).await });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(add(&state), 3);
}

/// Version 1 counts, version 2 lists.
fn listing(states: &States) -> State<Vec<u64>> {
    states.state("n").version(2).migrate(|_, reader| Ok(vec![serde_json::from_reader(reader)?]))
}

#[test]
fn a_raised_version_is_settled_or_set_back() {
    for settles in [false, true] {
        let manager = Manager::old(4);
        let old = manager.start(&Names::new());
        let states = States::new(old.clone());
        let first = states.state::<u64>("n");
        first.blocking_save(&7).unwrap();
        let new = next(&manager, &old);
        let new_states = States::new(new.clone());
        let second = listing(&new_states);
        // To look at it raises nothing.
        assert_eq!(second.blocking_read(Vec::clone).unwrap(), [7]);
        assert_eq!(add(&first), 8);
        second.blocking_update(|list| list.push(1)).unwrap();
        second.blocking_update(|list| list.push(2)).unwrap();
        assert_eq!(second.blocking_read(Vec::clone).unwrap(), [8, 1, 2]);

        for error in [
            first.blocking_update(|_| ()).unwrap_err(),
            first.blocking_save(&1).unwrap_err(),
            first.blocking_read(|_| ()).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(error.is_state() && text.contains("is of version 2: a newer program has saved it"), "{text}");
        }
        let Loaded::Damaged { reason, aside: None } = first.blocking_load().unwrap() else { panic!("it is in use") };
        assert!(reason.ends_with("this one knows version 1; that program runs, so it stays"), "{reason}");
        assert_eq!(second.blocking_read(Vec::clone).unwrap(), [8, 1, 2]);

        if settles {
            assert_eq!(memory(&old, "n"), 3 * 4096, "headers, new, old");
            new_states.settle().unwrap();
            assert_eq!(memory(&old, "n"), 2 * 4096);
            assert_eq!(states.restore().unwrap(), 0);
            assert_eq!(second.blocking_read(Vec::clone).unwrap(), [8, 1, 2]);
            continue;
        }
        // An older one's settle is not about a newer one.
        states.settle().unwrap();
        drop((second, new_states, new));
        assert_eq!(states.restore().unwrap(), 1);
        assert_eq!(states.restore().unwrap(), 0);
        assert_eq!(first.blocking_load().unwrap().value(), Some(8));
        assert_eq!(add(&first), 9);
        assert_eq!(memory(&old, "n"), 2 * 4096);
    }
}

#[test]
fn a_rollback_takes_back_also_a_first_value_and_a_removal() {
    let manager = Manager::old(4);
    let old = manager.start(&Names::new());
    let states = States::new(old.clone());
    let first = states.state::<u64>("n");
    states.prepare().unwrap();
    let new = next(&manager, &old);
    listing(&States::new(new)).blocking_save(&vec![1]).unwrap();
    assert_eq!(states.restore().unwrap(), 1);
    assert!(matches!(first.blocking_load().unwrap(), Loaded::None));
    assert_eq!(add(&first), 1);
    let new = next(&manager, &old);
    assert!(listing(&States::new(new)).blocking_remove().unwrap());
    assert!(matches!(first.blocking_load().unwrap(), Loaded::None));
    assert_eq!(states.restore().unwrap(), 1);
    assert_eq!(add(&first), 2);
}

#[test]
fn once_settled_nothing_of_older_versions_is_kept() {
    let manager = Manager::old(4);
    let store = manager.start(&Names::new());
    counter(&store).blocking_save(&7).unwrap();
    let states = States::new(store.clone());
    let state = listing(&states);
    states.settle().unwrap();
    state.blocking_update(|list| list.push(1)).unwrap();
    assert_eq!(memory(&store, "n"), 2 * 4096);
    assert_eq!(state.blocking_read(Vec::clone).unwrap(), [7, 1]);
    // Without a migration: it is not thrown away.
    let lost: State<Vec<u64>> = States::new(store).state("n").version(3);
    let error = lost.blocking_update(|_| ()).unwrap_err();
    assert!(error.is_state() && error.to_string().contains("there is no State::migrate"), "{error}");
    lost.blocking_save(&vec![1]).unwrap();
}

#[test]
fn after_a_downgrade_the_newer_value_is_put_aside() {
    let manager = Manager::old(4);
    listing(&States::new(manager.start(&Names::new()))).blocking_save(&vec![1, 2]).unwrap();
    let state = counter(&manager.start(&Names::new()));
    assert!(state.blocking_update(|_| ()).unwrap_err().is_state());
    let Loaded::Damaged { aside, .. } = state.blocking_load().unwrap() else { panic!() };
    assert_eq!(aside.as_deref(), Some("handover.aside.n"));
    assert_eq!(add(&state), 1);
    assert_eq!(manager.names(), ["handover.aside.n", "handover.state.n"]);
}

#[test]
fn what_the_next_generation_cannot_read_stays_the_previous_ones() {
    let manager = Manager::new_style(4);
    let old = manager.start(&Names::new());
    let first = counter(&old);
    first.blocking_save(&7).unwrap();
    let new = next(&manager, &old);
    // Its program has forgotten to raise the version.
    let second: State<Vec<u64>> = States::new(new.clone()).state("n");
    second.blocking_update(|list| list.push(1)).unwrap();
    assert_eq!(add(&first), 8, "a rollback loses nothing");
    assert_eq!(manager.names(), ["handover.state.n"]);
    old.freeze();
    new.adopt(old.entries().unwrap()).unwrap();
    new.sync().unwrap();
    second.blocking_update(|list| list.push(2)).unwrap();
    assert_eq!(second.blocking_read(Vec::clone).unwrap(), [1, 2]);
    assert_eq!(manager.names(), ["handover.aside.n", "handover.state.n"]);
    drop((old, new, first, second));
    let store = manager.start(&Names::new());
    assert_eq!(States::new(store).state::<Vec<u64>>("n").blocking_load().unwrap().value().unwrap(), [1, 2]);
}

#[test]
fn a_removed_state_is_gone_for_both() {
    let manager = Manager::old(4);
    let old = manager.start(&Names::new());
    let first = counter(&old);
    first.blocking_save(&7).unwrap();
    let second = counter(&next(&manager, &old));
    assert_eq!(add(&second), 8);
    assert!(first.blocking_remove().unwrap());
    assert!(!first.blocking_remove().unwrap());
    assert!(matches!(second.blocking_load().unwrap(), Loaded::None));
    assert!(manager.names().is_empty());
    assert_eq!(add(&first), 1);
}

fn memory(store: &FdStore, name: &str) -> u64 {
    file(store, name).metadata().unwrap().blocks() * 512
}

fn file(store: &FdStore, name: &str) -> File {
    File::from(store.get(&format!("handover.state.{name}")).unwrap().pop().unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Save(usize),
    Append(usize),
    Truncate(usize),
    /// By the other generation.
    Elsewhere(usize),
    TooLong,
    Raise,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let length = || prop_oneof![0..50_usize, 4000..4200_usize, 0..60_000_usize];
    prop_oneof![
        length().prop_map(Step::Save),
        length().prop_map(Step::Append),
        length().prop_map(Step::Truncate),
        length().prop_map(Step::Elsewhere),
        Just(Step::TooLong),
        Just(Step::Raise),
        Just(Step::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() })]
    #[test]
    fn it_is_as_the_model_and_gives_memory_back(steps in prop::collection::vec(step(), 1..30)) {
        const LIMIT: u64 = 400_000;
        let pages = |json: usize| (json as u64 + 2).next_multiple_of(4096);
        let manager = Manager::old(4);
        let store = manager.start(&Names::new());
        let other = States::new(next(&manager, &store));
        let states = States::new(store.clone());
        let of = |states: &States, version| {
            let state: State<String> = states.state("n");
            state.version(version).limit(LIMIT).migrate(|_, reader| Ok(serde_json::from_reader(reader)?))
        };
        let (mut version, mut model, mut previous) = (1, String::new(), 0);
        let mut state = of(&states, version);
        state.blocking_save(&model).unwrap();
        other.settle().unwrap();
        for (n, step) in steps.into_iter().enumerate() {
            let letter = char::from(b'a' + u8::try_from(n % 26).unwrap());
            let text = |length: usize| letter.to_string().repeat(length);
            match step {
                Step::Save(length) => {
                    model = text(length);
                    state.blocking_save(&model).unwrap();
                }
                Step::Append(length) if model.len() + length < 350_000 => {
                    model.push_str(&text(length));
                    state.blocking_update(|value| value.push_str(&text(length))).unwrap();
                }
                Step::Append(_) => {}
                Step::Truncate(length) => {
                    model.truncate(length);
                    state.blocking_update(|value| value.truncate(length)).unwrap();
                }
                Step::Elsewhere(length) => {
                    model = text(length);
                    let there = States::new(next(&manager, &store));
                    of(&there, version).blocking_save(&model).unwrap();
                }
                Step::TooLong => assert!(state.blocking_save(&text(400_000)).unwrap_err().is_invalid()),
                Step::Raise => {
                    (version, previous) = (version + 1, pages(model.len()));
                    let next = States::new(store.clone());
                    state = of(&next, version);
                    state.blocking_update(|_| ()).unwrap();
                }
                Step::Settle => {
                    previous = 0;
                    let main = States::new(store.clone());
                    let _handle = of(&main, version);
                    main.settle().unwrap();
                }
            }
            prop_assert_eq!(state.blocking_read(String::clone).unwrap(), model.as_str());
            prop_assert_eq!(of(&States::new(store.clone()), version).blocking_load().unwrap().value().unwrap(), model.as_str());
            prop_assert_eq!(memory(&store, "n"), 4096 + pages(model.len()) + previous);
            prop_assert!(file(&store, "n").metadata().unwrap().len() < 5 * LIMIT);
        }
    }
}
