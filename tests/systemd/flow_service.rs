//! The harness itself as a service on UDP with flows.
//!
//! `hello` is answered by the id of a new flow, which begins with the generation; `ID:TEXT` by
//! `GENERATION:TEXT`; `ID:bye` ends the flow.

use std::collections::HashMap;
use std::process::ExitCode;

use handover::Service;
use handover::drain::Flows;

/// Its presence makes the harness the service.
pub(crate) const SERVICE: &str = "HANDOVER_LAB_FLOWS";

type Failed = Box<dyn std::error::Error>;

pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failed> {
    handover::logging::init()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    runtime.block_on(async {
        let service = Service::builder().socket("flows").start()?;
        let generation = service.generation();
        for flows in service.flows("flows", |bytes, _| {
            let at = bytes.iter().position(|b| *b == b':')?;
            Some(bytes[..at].to_vec())
        })? {
            tokio::spawn(serve(flows, generation));
        }
        Ok(service.run().await?)
    })
}

async fn serve(mut flows: Flows, generation: u64) {
    let (mut open, mut next) = (HashMap::new(), 0);
    while let Some(datagram) = flows.recv().await {
        let text = String::from_utf8_lossy(datagram.bytes()).into_owned();
        let answer = match text.split_once(':') {
            None => {
                next += 1;
                let id = format!("{generation}-{next}");
                if let Ok(flow) = flows.open(id.as_bytes()) {
                    open.insert(id.clone(), flow);
                }
                id
            }
            Some((id, _)) if !open.contains_key(id) => format!("generation {generation} knows no {id}"),
            Some((id, "bye")) => {
                open.remove(id);
                "gone".to_owned()
            }
            Some((_, text)) => format!("{generation}:{text}"),
        };
        let _ = datagram.reply(answer.as_bytes()).await;
    }
}
