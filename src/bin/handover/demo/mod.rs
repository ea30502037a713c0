//! demo
mod load;
use crate::failure::*;
pub(crate) const SERVICE_COMMAND: &str = "web";
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}
pub(crate) async fn run(_: Options) -> Result<Outcome, Failure> { Ok(Outcome::Success) }
