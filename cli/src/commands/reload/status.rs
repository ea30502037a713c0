//! What a service with a control interface says of itself.

use std::time::Duration;

use handover::control::Answer;
use serde_json::Value;

use crate::believed;
use crate::failure::Failure;
use crate::safe;
use crate::target::Target;

/// Between two questions.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// From whichever generation accepts now.
pub(crate) async fn status(target: &Target) -> Result<Value, Failure> {
    let gone = || Failure::cannot_run(format!("{}: {}", target.name(), target.no_control()));
    status_if_told(target).await?.ok_or_else(gone)
}

/// As [`status`]; `None`: there is no control interface. One connection at a time, as those beside
/// it would be counted.
pub(crate) async fn status_if_told(target: &Target) -> Result<Option<Value>, Failure> {
    for _ in 0..3 {
        let Some(mut client) = target.connect().await? else { break };
        match client.call("Status", false).await.map_err(|e| Failure::cannot_run(e.to_string()))? {
            Answer::Done(mut parameters) => {
                let status = parameters["status"].take();
                believed::check(&target.expected(), &status)?;
                return Ok(Some(status));
            }
            Answer::Failed(failed) => {
                return Err(Failure::cannot_run(format!("{}: {}", target.name(), safe::terminal(failed.reason()))));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
    Ok(None)
}
