//! What the tool and the fuzz targets need of the library, and nobody else: no part of its
//! interface.

#[cfg(all(feature = "http", feature = "settings", feature = "supervise", feature = "upgrade"))]
pub mod fuzz;

pub use crate::sys::folder::write_file;
/// What processes have mounted.
pub mod mounts {
    pub use crate::generation::mounts::{ImageFile, Mount};
}
/// Processes that are meant beyond doubt.
pub mod pidfd {
    pub use crate::sys::pidfd::{id, open, send_signal};
}
