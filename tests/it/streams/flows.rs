//! Flows on UDP stay with the generation that has them.
//!
//! The protocol: `hello` is answered by the id of a new flow, `ID:TEXT` by `GENERATION:TEXT`, and
//! `ID:bye` ends the flow.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use handover::drain::{Drain, FlowLinks, Flows};
use handover::systemd::activation::{Activation, Socket, bind_datagram};
use tokio::net::UdpSocket;

use crate::support::{Log, moment, within};

struct Generation {
    name: &'static str,
    drain: Drain,
    socket: Socket,
    links: FlowLinks,
}

fn key(bytes: &[u8], _from: SocketAddr) -> Option<Vec<u8>> {
    let at = bytes.iter().position(|b| *b == b':')?;
    Some(bytes[..at].to_vec())
}

fn copy(socket: &Socket) -> Socket {
    let fd: OwnedFd = socket.as_fd().try_clone_to_owned().unwrap();
    Activation::from_fds(vec![("quic".to_owned(), fd)]).unwrap().take("quic").unwrap().pop().unwrap()
}

impl Generation {
    fn first() -> (Self, SocketAddr) {
        let socket = bind_datagram("quic", "127.0.0.1:0").unwrap().pop().unwrap();
        let address = std::net::UdpSocket::from(socket.as_fd().try_clone_to_owned().unwrap()).local_addr().unwrap();
        let first = Self::start("first", socket, None);
        first.drain.accept(true);
        (first, address)
    }

    fn start(name: &'static str, socket: Socket, older: Option<OwnedFd>) -> Self {
        let drain = Drain::new();
        let flows = Flows::new(&drain, "quic", copy(&socket), older, key).unwrap();
        let links = flows.links();
        tokio::spawn(serve(name, flows));
        Self { name, drain, socket, links }
    }

    /// Started, and not switched to.
    fn next(&self, name: &'static str) -> Self {
        Self::start(name, copy(&self.socket), Some(self.links.link().unwrap()))
    }

    fn switch_to(&self, next: &Self) {
        next.drain.accept(true);
        self.drain.accept(false);
    }

    fn hand_over_to(&self, next: &Self) {
        self.switch_to(next);
        self.drain.begin(Duration::ZERO);
    }
}

async fn serve(name: &'static str, mut flows: Flows) {
    let mut open = HashMap::new();
    while let Some(datagram) = flows.recv().await {
        let text = String::from_utf8_lossy(datagram.bytes()).into_owned();
        let answer = match text.split_once(':') {
            None => {
                let id = format!("{name}-{}", open.len());
                open.insert(id.clone(), flows.open(id.as_bytes()).unwrap());
                id
            }
            Some((id, _)) if !open.contains_key(id) => format!("{name} knows no {id}"),
            Some((id, "bye")) => {
                open.remove(id);
                "gone".to_owned()
            }
            Some((_, text)) => format!("{name}:{text}"),
        };
        datagram.reply(answer.as_bytes()).await.unwrap();
    }
}

struct Client(UdpSocket);

impl Client {
    async fn new(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        Self(socket)
    }

    async fn ask(&self, text: &str) -> String {
        self.0.send(text.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        let n = within(text, self.0.recv(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }
}

#[tokio::test]
async fn a_flow_stays_where_it_is_until_it_is_over() {
    let (first, address) = Generation::first();
    let client = Client::new(address).await;
    assert_eq!(client.ask("hello").await, "first-0");
    assert_eq!(client.ask("first-0:a").await, "first:a");
    let second = first.next("second");
    first.hand_over_to(&second);
    for text in ["b", "c"] {
        assert_eq!(client.ask(&format!("first-0:{text}")).await, format!("first:{text}"));
    }
    let other = Client::new(address).await;
    assert_eq!(other.ask("hello").await, "second-0");
    assert_eq!(other.ask("second-0:d").await, "second:d");
    // By the flow, not by the address.
    assert_eq!(other.ask("first-0:e").await, "first:e");
    assert_eq!(first.drain.active(), 1);
    assert_eq!(client.ask("first-0:bye").await, "gone");
    within("drained", first.drain.drained()).await;
    assert_eq!(client.ask("first-0:f").await, "second knows no first-0");
}

#[tokio::test]
async fn through_generations_in_between() {
    let (first, address) = Generation::first();
    let client = Client::new(address).await;
    assert_eq!(client.ask("hello").await, "first-0");
    let second = first.next("second");
    first.hand_over_to(&second);
    assert_eq!(client.ask("hello").await, "second-0");
    let third = second.next("third");
    second.hand_over_to(&third);
    assert_eq!(client.ask("hello").await, "third-0");
    for generation in [&first, &second, &third] {
        let name = generation.name;
        assert_eq!(client.ask(&format!("{name}-0:x")).await, format!("{name}:x"));
    }
    // The second has no flow any more, but the first needs it.
    assert_eq!(client.ask("second-0:bye").await, "gone");
    moment().await;
    assert_eq!(client.ask("first-0:y").await, "first:y");
    let both = tokio::spawn(async move {
        first.drain.drained().await;
        second.drain.drained().await;
    });
    assert_eq!(client.ask("first-0:bye").await, "gone");
    within("both drained", both).await.unwrap();
    assert_eq!(client.ask("third-0:z").await, "third:z");
}

/// Both gates are open for a moment: the new generation waits for the old one's flows.
#[tokio::test]
async fn only_one_receives_at_the_switch() {
    let (first, address) = Generation::first();
    let second = first.next("second");
    let client = Client::new(address).await;
    second.drain.accept(true);
    for number in 0..50 {
        assert_eq!(client.ask("hello").await, format!("first-{number}"));
    }
    first.drain.accept(false);
    assert_eq!(client.ask("hello").await, "second-0");
    for number in 0..50 {
        assert_eq!(client.ask(&format!("first-{number}:x")).await, "first:x");
    }
}

#[tokio::test]
async fn a_rollback_leaves_flows_where_they_are() {
    let (first, address) = Generation::first();
    let client = Client::new(address).await;
    assert_eq!(client.ask("hello").await, "first-0");
    for _ in 0..3 {
        let second = first.next("second");
        first.switch_to(&second);
        assert_eq!(client.ask("first-0:a").await, "first:a");
        // It fails in probation.
        second.drain.begin(Duration::ZERO);
        drop(second.drain.hammer());
        first.drain.accept(true);
        assert_eq!(client.ask("first-0:b").await, "first:b");
    }
    let second = first.next("second");
    first.hand_over_to(&second);
    assert_eq!(client.ask("first-0:c").await, "first:c");
    assert_eq!(client.ask("hello").await, "second-0");
}

/// As of a generation that is killed: its flows are unknown then, and the next one may say so.
#[tokio::test]
async fn the_hammer_ends_flows_and_the_next_one_gets_what_comes_for_them() {
    let (first, address) = Generation::first();
    let client = Client::new(address).await;
    assert_eq!(client.ask("hello").await, "first-0");
    let second = first.next("second");
    first.hand_over_to(&second);
    assert_eq!(client.ask("first-0:a").await, "first:a");
    let cut: Vec<_> = first.drain.hammer().iter().map(ToString::to_string).collect();
    assert!(cut.len() == 1 && cut[0].starts_with("quic: a flow, open for "), "{cut:?}");
    within("drained", first.drain.drained()).await;
    assert_eq!(client.ask("first-0:b").await, "second knows no first-0");
}

/// A stop, not a switch: nobody else would receive.
#[tokio::test]
async fn a_service_that_stops_ends_its_flows_in_order() {
    let (first, address) = Generation::first();
    let client = Client::new(address).await;
    assert_eq!(client.ask("hello").await, "first-0");
    first.drain.begin(Duration::ZERO);
    assert_eq!(client.ask("first-0:a").await, "first:a");
    client.0.send(b"hello").await.unwrap();
    assert_eq!(client.ask("first-0:bye").await, "gone", "no new flow");
    within("drained", first.drain.drained()).await;
}

#[tokio::test]
async fn a_mute_predecessor_is_not_waited_for_without_end() {
    let (log, _guard) = Log::start();
    let socket = bind_datagram("quic", "127.0.0.1:0").unwrap().pop().unwrap();
    let address = std::net::UdpSocket::from(socket.as_fd().try_clone_to_owned().unwrap()).local_addr().unwrap();
    let (mute, link) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let second = Generation::start("second", socket, Some(link.into()));
    second.drain.accept(true);
    assert_eq!(Client::new(address).await.ask("hello").await, "second-0");
    assert!(log.text().contains("has not told its flows within 1s"), "{}", log.text());
    drop(mute);
}

#[tokio::test]
async fn keys_are_checked() {
    let drain = Drain::new();
    let socket = bind_datagram("quic", "127.0.0.1:0").unwrap().pop().unwrap();
    let flows = Flows::new(&drain, "quic", socket, None, key).unwrap();
    let first = flows.open("key").unwrap();
    assert!(flows.open("key").unwrap_err().is_invalid());
    assert!(flows.opener().open(vec![0; 256]).unwrap_err().is_invalid());
    assert_eq!((first.key(), drain.active()), (&b"key"[..], 1));
    drop(first);
    assert_eq!(drain.active(), 0);
    drop(flows.opener().open("key").unwrap());
    let directory = tempfile::tempdir().unwrap();
    let unix = bind_datagram("quic", directory.path().join("d").to_str().unwrap()).unwrap().pop().unwrap();
    assert!(Flows::new(&drain, "quic", unix, None, key).unwrap_err().to_string().contains("a UDP socket is needed"));
}
