//! What the tool and the fuzz targets need of the library, and nobody else: no part of its interface.

pub use crate::sys::folder::write_file;
