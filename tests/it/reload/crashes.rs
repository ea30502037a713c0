//! SIGKILL of a service whose connections are insured, and its next start by a manager that keeps
//! fds.
//!
//! `HANDOVER_KILLS` and `HANDOVER_KILL_CLIENTS` say how many of each there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::moved::{Client, More, Way, get, more, seen, wait_until_seen};
use crate::{Case, cases};
use handover_testing::processes::{End, open_fds, signal, until};
use handover_testing::world::{Who, World};

pub(crate) const CASES: &[Case] = cases![
    whoever_is_between_two_requests_goes_on,
    what_was_half_read_is_never_a_request,
    without_insurance_all_are_closed,
    what_has_ended_does_not_pile_up,
    whoever_has_moved_is_insured_there,
    whoever_has_waited_for_a_bad_version_is_served,
];

const SEED: u64 = 24;
/// The store has the mailbox of those that come, that of those that stay, two spare ones, and at a
/// crash those of the process before; of this few connections.
const MOST_ENTRIES: usize = 8;

/// xorshift64*
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |number| number.parse().unwrap())
}

struct Service {
    world: World,
    listener: TcpListener,
}

impl Service {
    fn new(change: impl FnOnce(&mut More)) -> Self {
        let mut world = World::new().with_kept_store();
        more(&mut world, |more| {
            more.insured = true;
            change(more);
        });
        Self { world, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn start(&self) -> Who {
        self.world.started(self.program())
    }

    fn program(&self) -> handover::Program {
        self.world.program().socket("more", OwnedFd::from(self.listener.try_clone().unwrap()))
    }

    fn way(&self) -> Way {
        Way::Tcp(self.listener.local_addr().unwrap())
    }

    /// Kills it, but not in the moment between the last write of a reply and its note: it has one
    /// thread, which has done something else since.
    fn kill_quiet(&self, who: &Who) {
        assert_eq!(self.world.who().pid, who.pid);
        self.kill(who);
    }

    fn kill(&self, who: &Who) {
        signal(who.pid, Signal::SIGKILL);
        assert_eq!(self.world.end_of(who.pid), End::Killed(Signal::SIGKILL));
        self.world.wait_for_nobody();
    }

    /// The entries of the store with insured connections.
    fn entries(&self) -> usize {
        self.mailboxes().len()
    }

    fn mailboxes(&self) -> BTreeSet<String> {
        let kept = self.world.manager().kept();
        kept.into_iter().map(|(name, _)| name).filter(|name| name.starts_with("handover.insured.")).collect()
    }

    /// The connections that have come are in the store.
    fn wait_until_insured(&self) {
        until("the mailbox to be stored", || (self.entries() > 0).then_some(()));
    }

    /// How many were closed for that reason, over all starts.
    fn closed(&self, reason: &str) -> u64 {
        let log = self.world.log();
        let lines = log.lines().filter(|line| line.contains("are closed ("));
        let counts = lines.filter_map(|line| {
            let (_, after) = line.split_once(&format!("{reason}: "))?;
            after.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        });
        counts.sum()
    }
}

/// What a crowd of clients has seen.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// Closed while nothing of theirs was in progress.
    closed_between: AtomicU64,
    /// Closed in the middle of a request, or of its answer.
    closed_middle: AtomicU64,
    /// Closed just after an answer: it was written, and this was not noted yet.
    closed_after: AtomicU64,
    kills: Mutex<Vec<Instant>>,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// On a busy machine a thread may be stopped for so long at any place.
const JUST: Duration = Duration::from_millis(100);

impl Seen {
    fn was_just_before_a_kill(&self, at: Instant) -> bool {
        self.kills.lock().unwrap().iter().any(|kill| at + JUST > *kill && at < *kill + JUST)
    }
}

fn whoever_is_between_two_requests_goes_on() {
    let (kills, clients) = (number("HANDOVER_KILLS", 6), number("HANDOVER_KILL_CLIENTS", 60));
    let service = Service::new(|_| {});
    let mut who = service.start();
    let crowd = Arc::new(Seen::default());
    let address = service.listener.local_addr().unwrap();
    let running = thread::spawn({
        let crowd = Arc::clone(&crowd);
        move || run(address, clients, &crowd)
    });
    let mut rng = Rng(SEED);
    let mut fds = Vec::new();
    for _ in 0..kills {
        let before = crowd.answered.load(SeqCst);
        until("answers", || (crowd.answered.load(SeqCst) >= before + clients * 2).then_some(()));
        service.wait_until_insured();
        thread::sleep(Duration::from_millis(rng.below(20))); // at any moment
        assert!(service.entries() <= MOST_ENTRIES, "{} entries", service.entries());
        fds.push(open_fds(who.pid));
        crowd.kills.lock().unwrap().push(Instant::now());
        service.kill(&who);
        who = service.start();
    }
    let before = crowd.answered.load(SeqCst);
    until("answers after the last crash", || (crowd.answered.load(SeqCst) >= before + clients * 2).then_some(()));
    crowd.stop.store(true, SeqCst);
    running.join().unwrap();
    let (between, middle) = (crowd.closed_between.load(SeqCst), crowd.closed_middle.load(SeqCst));
    let after = crowd.closed_after.load(SeqCst);
    let (answered, counted) = (crowd.answered.load(SeqCst), service.closed("middle"));
    println!(
        "{kills} kills, {clients} clients: {answered} answers, {middle} closed in the middle, {after} just after an \
         answer, {between} between"
    );
    assert_eq!(crowd.wrong.lock().unwrap().as_slice(), [""; 0]);
    assert_eq!(between, 0, "closed although nothing of theirs was in progress");
    assert_eq!(middle + after, counted, "each that was closed was in the middle of a request");
    let twice: BTreeMap<_, _> = seen(&service.world).into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let bound = fds[0] + usize::try_from(clients).unwrap() / 2 + 20;
    assert!(fds.iter().all(|fds| *fds <= bound), "{fds:?}");
    service.world.stop();
}

/// Clients that ask again and again, each on its connection as long as that is open: whole
/// requests, heads in two parts, and bodies that contain what looks like a request.
fn run(address: SocketAddr, clients: u64, crowd: &Arc<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let crowd = Arc::clone(crowd);
            tasks.spawn(async move { client(address, number, &crowd).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
}

async fn client(address: SocketAddr, number: u64, crowd: &Seen) {
    let mut rng = Rng(SEED ^ ((number + 1) << 8));
    let mut request = 0;
    // Some are idle for long.
    let most = if number.is_multiple_of(4) { 1000 } else { 60 };
    while !crowd.stop.load(SeqCst) {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        stream.set_nodelay(true).unwrap();
        let mut answered = None;
        loop {
            // Idle, for some time: it may not be closed then.
            let mut byte = [0];
            let pause = Duration::from_millis(rng.below(most));
            match tokio::time::timeout(pause, stream.read(&mut byte)).await {
                Err(_) if crowd.stop.load(SeqCst) => return,
                Err(_) => {}
                Ok(_) if answered.is_some_and(|at| crowd.was_just_before_a_kill(at)) => {
                    crowd.closed_after.fetch_add(1, SeqCst);
                    break;
                }
                Ok(read) => {
                    crowd.closed_between.fetch_add(1, SeqCst);
                    crowd.wrong.lock().unwrap().push(format!("idle client {number}: {read:?}"));
                    break;
                }
            }
            request += 1;
            let id = format!("{number}.{request}");
            match ask(&mut stream, &id, &mut rng).await {
                Ok(Some(wrong)) => crowd.wrong.lock().unwrap().push(format!("{id}: {wrong}")),
                Ok(None) => {
                    answered = Some(Instant::now());
                    crowd.answered.fetch_add(1, SeqCst);
                }
                Err(_) => {
                    crowd.closed_middle.fetch_add(1, SeqCst);
                    break;
                }
            }
        }
    }
}

/// Asks, and returns what is wrong with the answer.
async fn ask(stream: &mut TcpStream, id: &str, rng: &mut Rng) -> std::io::Result<Option<String>> {
    let hidden = format!("{}x", get("n", "smuggled"));
    let (first, second, body) = match rng.below(4) {
        0 | 1 => (get("n", id), String::new(), id.to_owned()),
        2 => {
            let whole = get("n", id);
            let (first, second) = whole.split_at(1 + usize::try_from(rng.below(30)).unwrap());
            (first.to_owned(), second.to_owned(), id.to_owned())
        }
        _ => {
            let head = format!("POST /up/{id} HTTP/1.1\r\nHost: it\r\nContent-Length: {}\r\n\r\n", 7 + hidden.len());
            (format!("{head}1234567"), hidden.clone(), format!("{id} {}", 7 + hidden.len()))
        }
    };
    stream.write_all(first.as_bytes()).await?;
    if !second.is_empty() {
        tokio::time::sleep(Duration::from_millis(rng.below(30))).await;
        stream.write_all(second.as_bytes()).await?;
    }
    let mut all = Vec::new();
    loop {
        if stream.read_buf(&mut all).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
        let Some((head, got)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if got.len() >= length {
            let right = head.starts_with("http/1.1 200") && got == body;
            return Ok((!right).then(|| format!("{text:?}")));
        }
    }
}

fn what_was_half_read_is_never_a_request() {
    let service = Service::new(|_| {});
    let who = service.start();
    let way = service.way();
    let idle = |id: &str| {
        let mut client = way.client();
        client.ask("n", id);
        client.expect(id);
        client
    };
    let (mut fresh, mut between) = (way.client(), idle("between"));
    let mut upload = idle("upload");
    upload.send("POST /up/body HTTP/1.1\r\nHost: it\r\nContent-Length: 500\r\n\r\nsome of it");
    wait_until_seen(&service.world, "body");
    let mut slow = idle("before");
    slow.ask("slow", "slow");
    wait_until_seen(&service.world, "slow");
    // One read takes both: of the second a half.
    let mut half = way.client();
    half.send(&format!("{}GET /n/half HT", get("n", "whole")));
    half.expect("whole");
    // What is not read is not lost.
    service.wait_until_insured();
    service.kill_quiet(&who);
    between.ask("n", "meanwhile");
    fresh.send("GET /n/fresh HT");
    let who = service.start();
    between.expect("meanwhile");
    fresh.send("TP/1.1\r\nHost: it\r\n\r\n");
    fresh.expect("fresh");
    assert!(!upload.tries(&get("n", "smuggled"), "smuggled"));
    assert!(!half.tries(&get("n", "smuggled"), "smuggled"));
    slow.wait_for_end();
    assert_eq!(service.closed("middle"), 3);
    service.kill_quiet(&who);
    service.start();
    between.ask("n", "again");
    between.expect("again");
    let seen = seen(&service.world);
    assert!(!seen.contains_key("smuggled") && seen.values().all(|times| *times == 1), "{seen:?}");
    drop((between, fresh));
    service.world.stop();
}

fn without_insurance_all_are_closed() {
    let service = Service::new(|more| more.insured = false);
    let who = service.start();
    let mut client = service.way().client();
    client.ask("n", "one");
    client.expect("one");
    assert_eq!(service.entries(), 0);
    service.kill_quiet(&who);
    service.start();
    client.wait_for_end();
    service.world.stop();
}

fn what_has_ended_does_not_pile_up() {
    let service = Service::new(|more| more.keep_alive = Duration::from_millis(50));
    let who = service.start();
    let way = service.way();
    let each = number("HANDOVER_SHORT_CONNECTIONS", 1500);
    let mut fds = Vec::new();
    for round in 0..4 {
        for number in 0..each {
            let mut client = way.client();
            client.send(&format!("GET /n/{round}.{number} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n"));
            client.reply().unwrap();
            client.wait_for_end();
        }
        // The server closes it: its client notices.
        let mut idle = way.client();
        idle.ask("n", &format!("idle {round}").replace(' ', "."));
        idle.reply().unwrap();
        idle.wait_for_end();
        assert!(service.entries() <= MOST_ENTRIES, "{} entries", service.entries());
        until("fds to be closed", || (open_fds(who.pid) < 100).then_some(()));
        fds.push(open_fds(who.pid));
    }
    println!("{each} connections, 4 times: {fds:?} fds, {} entries", service.entries());
    assert!(fds.iter().all(|open| open.abs_diff(fds[1]) <= 6), "{fds:?}");
    service.kill_quiet(&who);
    service.start();
    assert_eq!(service.closed("middle"), 0, "all had ended");
    service.world.stop();
}

fn idle_clients(way: &Way, count: usize) -> Vec<Client> {
    let one = |number| {
        let mut client = way.client();
        client.ask("n", &format!("idle.{number}"));
        client.expect(&format!("idle.{number}"));
        client
    };
    (0..count).map(one).collect()
}

fn all_answer(clients: &mut [Client], what: &str) {
    for (number, client) in clients.iter_mut().enumerate() {
        let id = format!("{what}.{number}");
        client.ask("n", &id);
        client.expect(&id);
    }
}

fn whoever_has_moved_is_insured_there() {
    let service = Service::new(|_| {});
    service.start();
    let mut clients = idle_clients(&service.way(), 20);
    service.wait_until_insured();
    let of_first = service.mailboxes();
    let second = service.world.reload_to(2);
    service.world.wait_for_log("moved 20 connections");
    all_answer(&mut clients, "moved");
    // The first generation is gone, and so is what it had in the store.
    service.world.wait_for_only(&[second.pid]);
    until("the mailboxes of the second alone", || {
        let log = service.world.log();
        let gone = service.mailboxes().is_disjoint(&of_first) && service.entries() > 0;
        (gone && log.contains("generation=2")).then_some(())
    });
    service.kill_quiet(&second);
    let third = service.start();
    all_answer(&mut clients, "crashed");
    assert_eq!(service.closed("middle"), 0);
    let seen = seen(&service.world);
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    // Closed here, it is closed: no copy of an older one holds it open.
    service.kill_quiet(&third);
    service.start();
    all_answer(&mut clients, "twice");
    drop(clients);
    service.world.stop();
}

fn whoever_has_waited_for_a_bad_version_is_served() {
    let mut service = Service::new(|_| {});
    let who = service.start();
    let mut clients = idle_clients(&service.way(), 10);
    service.wait_until_insured();
    service.kill_quiet(&who);
    for _ in 0..3 {
        service.world.next(handover_testing::service::Step::Go, handover_testing::service::Step::Error("bad".into()));
        let pid = handover_testing::world::launch(service.program());
        assert_eq!(service.world.end_of(pid), End::Exited(1));
    }
    service.world.next(handover_testing::service::Step::Go, handover_testing::service::Step::Go);
    service.start();
    all_answer(&mut clients, "after");
    drop(clients);
    service.world.stop();
}
