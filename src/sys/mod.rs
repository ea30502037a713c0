//! sys
#[cfg(feature = "http")]
pub(crate) mod look;
