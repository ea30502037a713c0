//! Generations: what one inherits, starting the next one, and the link between the two.

pub(crate) mod failed;
pub(crate) mod inherited;
pub(crate) mod link;
pub(crate) mod mounts;
pub(crate) mod next;
pub(crate) mod place;
pub(crate) mod program;

pub(crate) use failed::FailedFile;
pub(crate) use inherited::Inherited;
pub(crate) use link::Link;
pub(crate) use next::{Estate, Known, Next, Origin};
