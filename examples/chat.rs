//! A chat room over WebSockets, and the same messages as server-sent events. A reload closes no
//! WebSocket: each goes to the next generation, with the number of its messages. One that cannot is
//! told to come again, in its protocol's own way: close code 1012 ("service restart"), or the end
//! of the event stream.
//!
//! The room itself does not move: while connections do, which takes two seconds at most, those of
//! the two generations do not hear each other.
//!
//! ```sh
//! cargo run --example chat --features http,journald
//! curl -N http://127.0.0.1:8080/events
//! ```

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use futures_util::{Stream, StreamExt, stream};
use handover::http::ConnectionInfo;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};

type Room = broadcast::Sender<String>;

#[tokio::main]
async fn main() -> handover::Result<()> {
    handover::logging::init()?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let seconds = std::env::var("HANDOVER_CHAT_DRAIN_SECONDS").ok().and_then(|s| s.parse().ok());
    let service = handover::Service::builder()
        .settings(handover::Settings::from_env()?)
        .listen("http", address)
        .drain_timeout(Duration::from_secs(seconds.unwrap_or(30))) // for clients that do not answer a goodbye
        .start()?;
    let (room, _) = broadcast::channel::<String>(1024);
    let router = Router::new()
        .route("/pid", get(async || format!("{}\n", std::process::id())))
        .route("/ws", any(socket))
        .route("/events", get(events))
        .with_state(room);
    service.serve_http("http", router)?;
    service.run().await
}

async fn socket(upgrade: WebSocketUpgrade, Extension(info): Extension<ConnectionInfo>, room: State<Room>) -> Response {
    // it counts as a connection until it is closed, and the drain waits for it, up to the drain
    // timeout
    upgrade.on_upgrade(move |socket| chat(socket, info, room.0))
}

async fn chat(mut socket: WebSocket, info: ConnectionInfo, room: Room) {
    let mut said: u64 = info.inherited().and_then(|inherited| inherited.state().ok()).unwrap_or(0);
    let mut messages = room.subscribe();
    loop {
        tokio::select! {
            pass = info.ready_to_move() => match pass {
                // it goes when it is dropped, and the client notices nothing
                Some(pass) => return drop(pass.give(&said)),
                None => break,
            },
            message = messages.recv() => match message {
                Ok(text) => {
                    if socket.send(Message::text(text)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {} // too slow to read everything
                Err(RecvError::Closed) => return,
            },
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) if text == "/count" => {
                    if socket.send(Message::text(said.to_string())).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Text(text))) => {
                    said += 1;
                    let _ = room.send(text.to_string());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
    let goodbye = CloseFrame { code: close_code::RESTART, reason: "reloaded: come again".into() };
    if socket.send(Message::Close(Some(goodbye))).await.is_ok() {
        // the client's own close; what it said before that still is for the room
        while let Some(Ok(message)) = socket.recv().await {
            if let Message::Text(text) = message {
                let _ = room.send(text.to_string());
            }
        }
    }
}

async fn events(Extension(info): Extension<ConnectionInfo>, room: State<Room>) -> impl IntoResponse {
    // ended, not cut: an EventSource connects again by itself, to the next generation
    Sse::new(said(room.subscribe()).take_until(info.drain())).keep_alive(KeepAlive::default())
}

fn said(messages: broadcast::Receiver<String>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(messages, async |mut messages| {
        loop {
            match messages.recv().await {
                Ok(text) => return Some((Ok(Event::default().data(text)), messages)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}
