//! Many clients at once, on several threads: nobody's request is lost, whatever the moment.

use crate::support::{Client, LINGER, Server, get, until, within};

const CLIENTS: usize = 64;

/// Each asks again as soon as it is answered, some with two requests at a time, until a reply says
/// `close`; that must be the last answer it is owed.
async fn ask_until_closed(mut client: Client, pipelined: usize) -> usize {
    let mut answered = 0;
    loop {
        client.send(get("/1").repeat(pipelined)).await;
        for at in 1..=pipelined {
            let reply = client.reply().await.expect("a reply to a request that was sent");
            answered += 1;
            if reply.close {
                assert_eq!(at, pipelined, "close, and yet another request had been sent with this one");
                client.closed().await;
                return answered;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_in_full_swing_loses_nothing() {
    for round in 0..10 {
        let server = Server::ours();
        let mut clients = Vec::new();
        for at in 0..CLIENTS {
            let client = Client::connect(server.address).await;
            clients.push(tokio::spawn(ask_until_closed(client, 1 + (at + round) % 2)));
        }
        until("all are accepted", || server.drain().active() == CLIENTS).await;
        server.begin(LINGER).await;
        for client in clients {
            assert!(within("a client", client).await.unwrap() > 0);
        }
        server.drained().await;
    }
}
