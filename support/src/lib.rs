//! What the tool `handover` and the tests of its repository share. It is published because the tool is, and promises nothing to others.
#![expect(missing_docs, reason = "no API for others")]

#[cfg(feature = "load")]
pub mod load;
