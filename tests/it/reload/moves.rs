//! Connections that go to the next generation, and what becomes of them when one of the two is
//! killed, or stopped, at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::moved::{Client, More, Way, get, more, seen, wait_until_seen};
use crate::{Case, cases};
use handover_testing::processes::{End, open_fds, signal, until};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    nothing_is_closed_over_tcp,
    nothing_is_closed_over_a_unix_socket,
    an_idle_one_is_not_idle_anew,
    half_a_head_has_its_time_once,
    what_is_more_than_the_limit_stays,
    what_the_new_version_does_not_serve_stays,
    what_may_not_move_stays,
    with_too_few_files_they_stay,
    a_version_that_does_not_move_any_drains,
    a_version_that_takes_none_is_handed_over_to,
    nobody_is_served_twice_when_one_is_killed,
    whoever_is_stopped_loses_nothing,
    fds_stay_as_many,
];

const LONG: Duration = Duration::from_secs(60);
const RELOADS: u64 = 5;

/// How many times, unless a variable says so: the normal run has few.
pub(crate) fn times(variable: &str, few: u64) -> u64 {
    std::env::var(variable).map_or(few, |times| times.parse().unwrap())
}

/// Connections that stay would hold the old generation for long.
fn patient() -> World {
    let mut world = World::new().configured(|c| (c.linger, c.drain_timeout) = (LONG, LONG));
    more(&mut world, |_| {});
    world
}

fn short(change: impl FnOnce(&mut More)) -> World {
    let mut world = World::new().configured(|c| c.linger = Duration::from_millis(300));
    more(&mut world, change);
    world
}

/// An idle connection.
fn idle(way: &Way, id: &str) -> Client {
    let mut client = way.client();
    client.ask("n", id);
    client.expect(id);
    client
}

fn nothing_is_closed_over_tcp() {
    nothing_is_closed(Way::tcp);
}

fn nothing_is_closed_over_a_unix_socket() {
    nothing_is_closed(Way::unix);
}

fn nothing_is_closed(make: fn(&World) -> (Way, handover::Program)) {
    let world = patient();
    let (way, program) = make(&world);
    let mut old = world.started(program).pid;
    let mut clients: Vec<_> = (0..4).map(|number| idle(&way, &format!("{number}"))).collect();
    let (mut asked, mut fresh) = (4, Vec::new());
    for generation in 2..=RELOADS + 1 {
        let [idle, half, slow, upload] = &mut clients[..] else { unreachable!() };
        let id = |what: &str| format!("{what}.{generation}");
        fresh.push(way.client());
        half.send(&format!("GET /n/{} HTTP/1.1\r\nHo", id("half")));
        // two behind, and half of a third
        slow.send(&[get("slow", &id("slow")), get("n", &id("a")), get("n", &id("b")), "GET /n/c".into()].concat());
        upload.send(&format!("POST /up/{} HTTP/1.1\r\nHost: it\r\nContent-Length: 9\r\n\r\nhalf", id("upload")));
        wait_until_seen(&world, &id("slow"));
        wait_until_seen(&world, &id("upload"));
        let new = world.reload_to(generation);

        for (number, client) in fresh.iter_mut().enumerate() {
            let id = id(&format!("fresh.{number}"));
            client.ask("n", &id);
            client.expect(&id);
        }
        idle.ask("n", &id("idle"));
        idle.expect(&id("idle"));
        half.send("st: it\r\n\r\n");
        half.expect(&id("half"));
        fs::write(world.path(&format!("go.{}", id("slow"))), "").unwrap();
        for what in ["slow", "a", "b"] {
            slow.expect(&id(what));
        }
        upload.send(" done");
        upload.expect(&format!("{} 9", id("upload")));
        // It would linger for each that is left.
        assert_eq!(world.end_of(old), End::Exited(0));
        slow.send(&format!(".{generation} HTTP/1.1\r\nHost: it\r\n\r\n"));
        slow.expect(&id("c"));
        (old, asked) = (new.pid, asked + 7 + fresh.len());
    }
    let seen = seen(&world);
    assert_eq!((seen.len(), seen.values().sum::<usize>()), (asked, asked), "{seen:?}");
    assert!(!world.log().contains(" stayed ("), "all moved");
    drop((clients, fresh));
    world.stop();
}

/// Since its last reply, wherever that was made: not since a timer fired, or since it has moved.
fn an_idle_one_is_not_idle_anew() {
    let timeout = Duration::from_secs(3);
    let mut world = patient();
    more(&mut world, |more| more.keep_alive = timeout);
    let (way, program) = Way::tcp(&world);
    world.started(program);
    let client = idle(&way, "1");
    let since = Instant::now();
    thread::sleep((timeout / 3).saturating_sub(since.elapsed()));
    world.reload_to(2);
    thread::sleep((timeout * 2 / 3).saturating_sub(since.elapsed()));
    world.reload_to(3);
    client.wait_for_end();
    let took = since.elapsed();
    assert!(took >= timeout && took < timeout * 5 / 4, "{took:?}");
    world.stop();
}

/// And what was idle before does not count.
fn half_a_head_has_its_time_once() {
    let timeout = Duration::from_secs(3);
    let mut world = patient();
    more(&mut world, |more| more.header = timeout);
    let (way, program) = Way::tcp(&world);
    world.started(program);
    let mut client = idle(&way, "1");
    world.reload_to(2);
    thread::sleep(timeout * 2 / 3);
    let since = Instant::now();
    client.send("GET /n/2 HTTP/1.1\r\nHo");
    world.reload_to(3);
    thread::sleep((timeout * 2 / 3).saturating_sub(since.elapsed()));
    world.reload_to(4);
    client.wait_for_end();
    let took = since.elapsed();
    assert!(took >= timeout && took < timeout * 3 / 2, "{took:?}");
    world.stop();
}

/// Three idle ones, of which so many move; the others are closed after the linger, for that reason.
fn stay(mut world: World, moved: usize, why: &str, next: impl FnOnce(&mut More)) {
    let (way, program) = Way::tcp(&world);
    let first = world.started(program);
    let mut clients: Vec<_> = (0..3).map(|number| idle(&way, &format!("{number}"))).collect();
    more(&mut world, next);
    world.reload_to(2);
    let stayed = clients.len() - moved;
    world.wait_for_log(&format!("{stayed} stayed ({why}: {stayed})"));
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    let open = clients.iter_mut().map(|client| client.tries(&get("n", "last"), "last")).filter(|open| *open).count();
    assert_eq!(open, moved);
    world.stop();
}

fn what_is_more_than_the_limit_stays() {
    stay(short(|_| {}), 1, "full", |more| more.most = Some(1));
}

fn what_the_new_version_does_not_serve_stays() {
    stay(short(|_| {}), 0, "listener", |more| more.serves = false);
}

fn what_may_not_move_stays() {
    stay(short(|more| more.migrate = false), 0, "off", |_| {});
}

fn with_too_few_files_they_stay() {
    stay(short(|_| {}), 0, "no_fds", |more| more.files = Some(70));
}

fn a_version_that_does_not_move_any_drains() {
    drains(short(|_| {}).configured(|c| c.moves = false), true);
}

fn a_version_that_takes_none_is_handed_over_to() {
    drains(short(|_| {}), false);
}

/// As ever: idle ones are answered once more.
fn drains(mut world: World, next: bool) {
    let (way, program) = Way::tcp(&world);
    let first = world.started(program);
    let mut clients: Vec<_> = (0..3).map(|number| idle(&way, &format!("{number}"))).collect();
    world.configure(|c| c.moves = next);
    world.reload_to(2);
    let (head, body) = {
        clients[0].ask("n", "last");
        clients[0].reply().unwrap()
    };
    assert!(head.contains("connection: close") && body == "last", "{head}");
    clients.into_iter().for_each(Client::wait_for_end);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert!(!world.log().contains("moved "));
    world.stop();
}

/// A generator of numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// With these, a move takes some tens of milliseconds.
const CLIENTS: u64 = 150;
const SEED: u64 = 22;

/// A reload with many clients, of which some have sent half a head, and the two pids, when moving
/// has just begun.
fn moving(world: &World) -> (Vec<Client>, u32, u32) {
    let (way, program) = Way::tcp(world);
    let old = world.started(program).pid;
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| idle(&way, &format!("{number}"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 3 == 0 {
            client.send(&format!("GET /n/again.{number} HTTP/1.1\r\nHo"));
        }
    }
    signal(old, Signal::SIGHUP);
    let new = world.wait_for_birth(2);
    world.wait_for_log("generation 1 drains");
    (clients, old, new)
}

/// The next request of each, or the rest of it.
fn ask_again(clients: &mut [Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 3 {
            0 => client.send("st: it\r\n\r\n"),
            _ => client.ask("n", &format!("again.{number}")),
        }
    }
}

/// Each is answered once, or its connection is closed; returns who is answered.
fn all_answered(world: &World, clients: &mut [Client]) -> Vec<bool> {
    let again = |(number, client): (usize, &mut Client)| client.tries("", &format!("again.{number}"));
    let answered = clients.iter_mut().enumerate().map(again).collect();
    let twice: Vec<_> = seen(world).into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    answered
}

/// Kills it, unless it has ended by itself.
fn end(pid: u32) {
    _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
}

/// Stops it, unless it has ended by itself, or is about to.
fn halt(pid: u32) {
    _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGSTOP);
    until("it to stand still", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let state = status.lines().find_map(|line| line.strip_prefix("State:\t")).unwrap_or("gone");
        ["T", "Z", "X", "gone"].iter().any(|still| state.starts_with(still)).then_some(())
    });
}

/// Which of the clients' connections the process holds at its end, by the inodes of their sockets.
fn held(pid: u32, clients: &[Client]) -> Vec<bool> {
    // A process that has ended holds none.
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets: BTreeSet<u64> = fds
        .filter_map(|fd| {
            fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let inodes: BTreeMap<_, u64> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let row: Vec<_> = line.split_whitespace().collect();
            let port = |at: usize| u16::from_str_radix(row.get(at)?.rsplit(':').next()?, 16).ok();
            Some(((port(1)?, port(2)?), row.get(9)?.parse().ok()?))
        })
        .collect();
    let holds = |client: &Client| {
        let (ours, theirs) = client.ports().unwrap();
        inodes.get(&(theirs, ours)).is_some_and(|inode| sockets.contains(inode))
    };
    clients.iter().map(holds).collect()
}

/// What becomes of them when one of the two is killed. Both stand still just before, so that it is
/// known who has which: an owner has an fd, and the new one is the owner of what both have, or is
/// about to be. What the old one alone has may be in the new one's queue, and then lives on.
///
/// `HANDOVER_MOVE_KILLS=300`, as often as that.
fn nobody_is_served_twice_when_one_is_killed() {
    let kills = times("HANDOVER_MOVE_KILLS", 12);
    let mut random = Random(SEED);
    let (mut answered, mut closed, mut both) = ([0, 0], [0, 0], 0);
    for round in 0..kills {
        let world = patient();
        let (mut clients, old, new) = moving(&world);
        thread::sleep(Duration::from_micros(random.below(45_000)));
        [old, new].into_iter().for_each(halt);
        let [of_old, of_new] = [old, new].map(|pid| held(pid, &clients));
        // An old one whose next is gone is in a hurry: whoever has not asked is soon closed.
        ask_again(&mut clients);
        let kills_new = usize::from(round % 2 == 1);
        end([old, new][kills_new]);
        // The other one.
        _ = kill(Pid::from_raw(i32::try_from([new, old][kills_new]).unwrap()), Signal::SIGCONT);
        let open = all_answered(&world, &mut clients);
        for (number, open) in open.iter().enumerate() {
            let (old_has, new_has) = (of_old[number], of_new[number]);
            assert!(old_has || new_has, "round {round}, client {number}: nobody has it");
            let of_killed = if kills_new == 1 { new_has } else { old_has && !new_has };
            assert!(
                *open || of_killed,
                "round {round}, client {number}: closed, although it was not of who was killed"
            );
            // What is in its queue only the kernel knows.
            assert!(
                kills_new == 0 || !new_has || old_has || !open,
                "round {round}, client {number}: of who was killed"
            );
            both += usize::from(old_has && new_has);
        }
        let open = open.iter().filter(|open| **open).count();
        answered[kills_new] += open;
        closed[kills_new] += clients.len() - open;
        drop(clients);
        world.processes().into_iter().for_each(end);
        world.wait_for_nobody();
    }
    println!(
        "seed {SEED}: {kills} kills while {CLIENTS} move: none twice, and none closed that was not of who was killed; \
         old one killed: {} answered, {} closed; new one killed: {} answered, {} closed; {both} were just changing hands",
        answered[0], closed[0], answered[1], closed[1]
    );
    assert!(answered[0] > 0, "what has moved is unharmed");
}

/// `HANDOVER_MOVE_STOPS=20`, as often as that.
fn whoever_is_stopped_loses_nothing() {
    let stops = times("HANDOVER_MOVE_STOPS", 2);
    let mut random = Random(SEED);
    for stop in 0..stops {
        let world = patient();
        let (mut clients, old, new) = moving(&world);
        thread::sleep(Duration::from_micros(random.below(30_000)));
        signal(new, Signal::SIGSTOP);
        // Half of them for longer than the old one waits.
        thread::sleep(Duration::from_millis(200 + 1_300 * (stop % 2)));
        signal(new, Signal::SIGCONT);
        ask_again(&mut clients);
        let answered = all_answered(&world, &mut clients);
        assert!(answered.iter().all(|answered| *answered), "{answered:?}");
        drop(clients);
        assert_eq!(world.end_of(old), End::Exited(0));
        world.stop();
    }
    println!("seed {SEED}: {stops} stops while {CLIENTS} move: none lost, none twice");
}

/// `HANDOVER_MOVE_RELOADS=1000`, as often as that.
fn fds_stay_as_many() {
    const IDLE: usize = 20;
    const FIRST: u64 = 5;
    let reloads = times("HANDOVER_MOVE_RELOADS", 12);
    let world = patient();
    let (way, program) = Way::tcp(&world);
    let mut old = world.started(program).pid;
    let mut clients: Vec<_> = (0..IDLE).map(|number| idle(&way, &format!("{number}"))).collect();
    let mut counts = Vec::new();
    for generation in 2..=reloads + 1 {
        let who = world.reload_to(generation);
        assert_eq!(world.end_of(old), End::Exited(0));
        old = who.pid;
        if [FIRST, reloads + 1].contains(&generation) {
            let settled = world.settled_fds(&who);
            counts.push(until("as many fds as before", || {
                let now = open_fds(who.pid);
                (now <= counts.first().copied().unwrap_or(settled)).then_some(now)
            }));
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.ask("n", &format!("last.{number}"));
        client.expect(&format!("last.{number}"));
    }
    println!("{reloads} reloads with {IDLE} idle connections: fds {counts:?}");
    drop(clients);
    world.stop();
}
