//! Thousands of generated connections beside bare hyper: the same answers, and no close that was
//! not announced. In normal operation, and with a drain that begins at any step.
//!
//! A run makes 100,000 cases, or as many as fit into 40 s, and prints how many, and its seed.
//! `HANDOVER_SEED` gives another one, `HANDOVER_CASE` runs a single case of it.

use crate::support::{Client, LINGER, Server, header, status};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CASES: u64 = 100_000;
const TIME: Duration = Duration::from_secs(40);
const SEED: u64 = 20_261_128;
/// So many connections at a time.
const WORKERS: usize = 16;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    head_only: bool,
    /// The client itself wants the end after it, or sends what is no HTTP.
    last: bool,
    /// Where it is cut into several writes.
    cuts: Vec<usize>,
}

#[derive(Debug)]
struct Case {
    requests: Vec<Request>,
    /// All are written before the first answer is read.
    pipelined: bool,
    /// The drain begins before this request, in its middle, or behind it.
    drain: Option<(usize, When)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Before,
    Amid,
    Behind,
}

const SIZES: [usize; 18] =
    [0, 1, 5, 100, 1000, 2000, 2047, 2048, 4096, 8000, 8192, 9000, 12_000, 16_384, 20_000, 24_000, 33_000, 70_000];

fn body(random: &mut Random) -> String {
    let size = random.of(&SIZES);
    let size = size + random.below(size / 4 + 1);
    "0123456789abcdef".repeat(size / 16 + 1)[..size].to_owned()
}

fn chunked(body: &str, random: &mut Random) -> String {
    let mut text = String::new();
    let mut rest = body;
    let most = body.len() / random.of(&[1, 1, 2, 5, 20]) + 1;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(most.min(rest.len()));
        let extension = if random.one_in(10) { ";a=b" } else { "" };
        write!(text, "{:x}{extension}\r\n{chunk}\r\n", chunk.len()).unwrap();
        rest = behind;
    }
    text + if random.one_in(10) { "0\r\nTrailer: x\r\n\r\n" } else { "0\r\n\r\n" }
}

fn request(random: &mut Random) -> Request {
    let mut last = random.one_in(20);
    let mut headers = if last { "Host: test\r\nConnection: close\r\n".to_owned() } else { "Host: test\r\n".to_owned() };
    let path = random.of(&["/early", "/early", "/echo"]);
    let (head_only, text) = match random.below(12) {
        0..=2 => (false, format!("GET /1 HTTP/1.1\r\n{headers}\r\n")),
        3 => (true, format!("HEAD /1 HTTP/1.1\r\n{headers}\r\n")),
        4 if random.one_in(4) => {
            last = true;
            (
                false,
                random.of(&["GET / HTTP/9\r\n\r\n", "GET /1 HTTP/1.1\r\nHost : x\r\n\r\n", "\0\r\n\r\n"]).to_owned(),
            )
        }
        4 => {
            let kept = random.one_in(2);
            last |= !kept;
            headers += if kept { "Connection: keep-alive\r\n" } else { "" };
            (false, format!("GET /1 HTTP/1.0\r\n{headers}\r\n"))
        }
        5..=8 => {
            let body = body(random);
            (false, format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
        }
        _ => {
            let body = body(random);
            let body = chunked(&body, random);
            (false, format!("POST {path} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n{body}"))
        }
    };
    let mut cuts = Vec::new();
    if random.one_in(3) {
        cuts = (0..=random.below(3)).map(|_| random.below(text.len())).collect();
        cuts.sort_unstable();
    }
    Request { bytes: text.into_bytes(), head_only, last, cuts }
}

fn case(seed: u64) -> Case {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..4 {
        random.below(2);
    }
    let count = 1 + random.below(4);
    let requests: Vec<_> = (0..count).map(|_| request(&mut random)).collect();
    let when = random.of(&[When::Before, When::Amid, When::Behind]);
    let drain = random.one_in(3).then(|| (random.below(count), when));
    Case { requests, pipelined: random.one_in(4), drain }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: u16,
    close: bool,
    body: Vec<u8>,
}

async fn answer(client: &mut Client, head_only: bool) -> Option<Answer> {
    let head = loop {
        let head = client.head().await?;
        if status(&head) >= 200 {
            break head;
        }
    };
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let body = if head_only { Vec::new() } else { client.take(length).await? };
    Some(Answer { status: status(&head), close: header(&head, "connection") == Some("close"), body })
}

async fn write(client: &mut Client, request: &Request, amid: impl AsyncFnOnce()) {
    let mut from = 0;
    let mut amid = Some(amid);
    for at in request.cuts.iter().copied() {
        client.try_send(&request.bytes[from..at]).await;
        from = at;
        tokio::task::yield_now().await;
        if let Some(amid) = amid.take() {
            amid().await;
        }
    }
    client.try_send(&request.bytes[from..]).await;
}

/// What the client got for each of its requests, up to the first without an answer, and for one
/// more behind them.
async fn play(case: &Case, server: &Server, drains: bool) -> Vec<Option<Answer>> {
    let mut client = Client::connect(server.address).await;
    client.ends_by_reset();
    let mut answers = Vec::new();
    let begin = async |at: usize, when: When| {
        if drains && case.drain == Some((at, when)) {
            server.begin(LINGER).await;
        }
    };
    if drains {
        // what the drain meets is a connection, and not one in the backlog, which the next
        // generation gets
        crate::support::until("accepted", || server.drain().active() > 0).await;
    }
    for (at, request) in case.requests.iter().enumerate() {
        begin(at, When::Before).await;
        write(&mut client, request, async || begin(at, When::Amid).await).await;
        begin(at, When::Behind).await;
        if !case.pipelined {
            answers.push(answer(&mut client, request.head_only).await);
            if request.last || answers.last().unwrap().as_ref().is_none_or(|answer| answer.close) {
                return answers;
            }
        }
    }
    if case.pipelined {
        for request in &case.requests {
            answers.push(answer(&mut client, request.head_only).await);
            if request.last || answers.last().unwrap().as_ref().is_none_or(|answer| answer.close) {
                return answers;
            }
        }
    }
    client.try_get("/last").await;
    answers.push(answer(&mut client, false).await);
    answers
}

/// What is wrong with our answers, if anything is.
fn wrong(case: &Case, ours: &[Option<Answer>], bare: &[Option<Answer>]) -> Option<String> {
    for (at, answer) in ours.iter().enumerate() {
        if answer.is_none() {
            // a client that breaks off its own protocol is not owed an answer
            let last = case.requests.get(at).is_some_and(|request| request.last);
            let excused = last && bare.get(at).is_none_or(Option::is_none);
            if !excused {
                return Some(format!("request {at} has no answer, and no close was announced"));
            }
        }
    }
    for (at, (ours, bare)) in ours.iter().zip(bare).enumerate() {
        let (Some(ours), Some(bare)) = (ours, bare) else { continue };
        if (ours.status, &ours.body) != (bare.status, &bare.body) {
            return Some(format!("request {at} has another answer: {} and {}", ours.status, bare.status));
        }
    }
    None
}

async fn compare(seed: u64, shared: &Server, bare: &Server) -> Result<(), String> {
    let case = case(seed);
    let theirs = play(&case, bare, false).await;
    let ours = match case.drain {
        Some(_) => play(&case, &Server::ours(), true).await,
        None => play(&case, shared, false).await,
    };
    match wrong(&case, &ours, &theirs) {
        None => Ok(()),
        Some(why) => {
            let short = |answers: &[Option<Answer>]| -> Vec<_> {
                answers.iter().map(|a| a.as_ref().map(|a| (a.status, a.close, a.body.len()))).collect()
            };
            let requests: Vec<_> = case
                .requests
                .iter()
                .map(|request| {
                    let text = String::from_utf8_lossy(&request.bytes[..request.bytes.len().min(120)]).into_owned();
                    (text, request.bytes.len(), &request.cuts)
                })
                .collect();
            Err(format!(
                "HANDOVER_CASE={seed}: {why}\npipelined: {}, drain: {:?}\n{requests:#?}\nours {:?}\nbare {:?}",
                case.pipelined,
                case.drain,
                short(&ours),
                short(&theirs)
            ))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "a run tells how large it was, and its seed")]
async fn the_same_answers_and_no_close_that_was_not_announced() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (seed, one) = (number("HANDOVER_SEED").unwrap_or(SEED), number("HANDOVER_CASE"));
    let (next, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (next, done) = (Arc::clone(&next), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut ours, mut bare) = (Server::ours(), Server::bare().await);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= if one.is_some() { 1 } else { CASES } || began.elapsed() > TIME {
                        return Ok(());
                    }
                    compare(one.unwrap_or(seed.wrapping_mul(1_000_003).wrapping_add(at)), &ours, &bare).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                    while ours.arrived.try_recv().is_ok() || bare.arrived.try_recv().is_ok() {}
                }
            })
        })
        .collect();
    for worker in workers {
        let result: Result<(), String> = worker.await.unwrap();
        result.unwrap_or_else(|why| panic!("{why}"));
    }
    println!("{} cases of HANDOVER_SEED={seed} in {:?}", done.load(Ordering::Relaxed), began.elapsed());
}
