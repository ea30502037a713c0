//! The harness itself as a service that writes down what comes by FIFO and by message queue; and as
//! the queue's writer.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use handover::Service;
use handover::drain::Datagrams;
use nix::mqueue::{MQ_OFlag, mq_open, mq_send};
use nix::sys::stat::Mode;

/// Its presence, with a directory, makes the harness the service.
pub(crate) const DIRECTORY: &str = "HANDOVER_LAB_SINK";
/// Its presence, with the name of a queue, makes the harness a writer that ends when there is a
/// file named as in [`DIRECTORY`] and `stop`; it prints how many messages it sent.
pub(crate) const QUEUE: &str = "HANDOVER_LAB_QUEUE";

type Failed = Box<dyn std::error::Error>;

pub(crate) fn main(directory: &str) -> ExitCode {
    let directory = PathBuf::from(directory);
    let result = match std::env::var(QUEUE) {
        Ok(queue) => write(&queue, &directory),
        Err(_) => serve(&directory),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(directory: &Path) -> Result<(), Failed> {
    handover::logging::init()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    runtime.block_on(async {
        let service = Service::builder().socket("fifo").socket("queue").start()?;
        for name in ["fifo", "queue"] {
            let file = File::options().create(true).append(true).open(directory.join(format!("{name}.out")))?;
            for datagrams in service.datagrams(name)? {
                tokio::spawn(sink(datagrams, file.try_clone()?));
            }
        }
        for name in ["special", "netlink"] {
            // Not in every scenario.
            for fd in service.fds(name).unwrap_or_default() {
                tracing::info!("generation {}: {name} is {}", service.generation(), fd.kind());
            }
        }
        Ok(service.run().await?)
    })
}

async fn sink(mut datagrams: Datagrams, mut file: File) {
    while let Some(datagram) = datagrams.recv().await {
        // In one piece: another generation appends to the same file.
        if let Err(e) = file.write_all(datagram.bytes()) {
            println!("{e}");
        }
    }
}

fn write(queue: &str, directory: &Path) -> Result<(), Failed> {
    let queue = mq_open(queue, MQ_OFlag::O_WRONLY, Mode::empty(), None)?;
    let mut number = 0;
    while !directory.join("stop").exists() {
        mq_send(&queue, format!("job {number}\n").as_bytes(), 0)?;
        number += 1;
        if number % 8 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    println!("{number}");
    Ok(())
}
