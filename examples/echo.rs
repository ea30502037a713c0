//! An echo over everything that is not HTTP: TCP, Unix streams, sequential packets, UDP, Unix
//! datagrams. No reload loses a byte.
//!
//! ```sh
//! cargo run --example echo --features journald
//! socat - TCP:127.0.0.1:7007
//! pkill -HUP --exact echo       # the conversation goes on, in the new generation
//! ```
//!
//! A line is echoed, except `who`, which is answered by the generation, `stay`, after which the
//! conversation ends in the generation that it is in, and `wait`, which is answered when that
//! generation drains.

use std::error::Error;
use std::io;
use std::time::Duration;

use handover::Service;
use handover::drain::{Connection, Seqpacket, StreamOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    handover::logging::init()?;
    // The names in the .socket units; the addresses are for without one.
    let address = |variable: &str, default: &str| std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let service = Service::builder()
        .settings(handover::Settings::from_env()?)
        .listen("echo", address("ECHO", "127.0.0.1:7007"))
        .listen_seqpacket("echo-packets", address("ECHO_PACKETS", "@handover-echo-packets"))
        .listen_datagram("echo-datagrams", address("ECHO_DATAGRAMS", "127.0.0.1:7007"))
        .drain_timeout(Duration::from_secs(20))
        .start()?;

    let generation = service.generation();
    let moving = StreamOptions::new().migrate(true);
    service.serve_stream_with("echo", moving, move |connection| converse(connection, generation))?;
    service.serve_seqpacket("echo-packets", packets)?;
    service.serve_datagrams("echo-datagrams", |datagram| async move { datagram.reply(datagram.bytes()).await })?;
    service.run().await?; // ready, watchdog, SIGHUP → reload, SIGTERM → stop
    Ok(())
}

async fn converse(connection: Connection, generation: u64) -> io::Result<()> {
    let Connection { mut stream, mut mover, drain, inherited, .. } = connection;
    let mut received = inherited.map_or_else(Vec::new, |inherited| inherited.unread().to_vec());
    let mut stays = false;
    loop {
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            match line.as_slice() {
                b"who\n" => stream.write_all(format!("generation {generation}\n").as_bytes()).await?,
                b"stay\n" => {
                    stays = true;
                    stream.write_all(b"staying\n").await?;
                }
                b"wait\n" => {
                    stream.write_all(b"waiting\n").await?;
                    drain.await;
                    stream.write_all(format!("goodbye from generation {generation}\n").as_bytes()).await?;
                    return stream.shutdown().await;
                }
                line => stream.write_all(line).await?,
            }
        }
        tokio::select! {
            // Between two lines: what has come of the next one goes along.
            Some(pass) = mover.ready(), if !stays => return pass.give(stream, &received, &()),
            read = stream.read_buf(&mut received) => if read? == 0 { break },
        }
    }
    stream.write_all(&received).await?;
    stream.shutdown().await
}

async fn packets(connection: Connection<Seqpacket>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match connection.stream.recv(&mut buffer).await? {
            0 => return Ok(()),
            n => connection.stream.send(&buffer[..n]).await?,
        }
    }
}
