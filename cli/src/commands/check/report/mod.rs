//! What is printed: all pure, a report in and a text out.

pub(super) mod drop_in;
pub(super) mod json;
pub(super) mod manual;
pub(super) mod sarif;
pub(super) mod text;
