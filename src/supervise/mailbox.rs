//! The other end of `NOTIFY_SOCKET`: what services say by sd_notify(3), who each message is from,
//! and the fds that come along. For service managers, and for tests of services without one.
//!
//! ```no_run
//! use handover::supervise::mailbox;
//! use std::path::Path;
//!
//! # fn main() -> std::io::Result<()> {
//! let socket = mailbox::bind(Path::new("/run/mine/notify"))?; // NOTIFY_SOCKET of the service
//! loop {
//!     let letter = mailbox::receive(&socket, 4096)?;
//!     println!("{:?} says {}", letter.pid, String::from_utf8_lossy(&letter.bytes));
//! }
//! # }
//! ```

pub use crate::sys::mailbox::{ProcessMessage, bind, receive};
