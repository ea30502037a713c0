//! What the kernel says of processes, and of the sockets between them: by that a supervisor knows
//! which process of a program accepted a connection, whatever the program is. Other tools that
//! watch services need it as well.
//!
//! ```no_run
//! use handover::supervise::proc::{Diag, all, holds};
//! use std::net::TcpStream;
//!
//! # fn main() -> std::io::Result<()> {
//! let client = TcpStream::connect("127.0.0.1:8080")?;
//! // ... and once there was an answer:
//! if let Some(server) = Diag::open()?.tcp(client.peer_addr()?, client.local_addr()?)? {
//!     let who: Vec<_> = all().filter(|process| holds(process.pid, server.inode)).collect();
//!     println!("answered by {who:?}");
//! }
//! # Ok(())
//! # }
//! ```

pub use crate::sys::diag::{Diag, Tcp, holds};
pub use crate::sys::stat::{Stat, add_descendants, all, ancestors, pids, program, stat};
