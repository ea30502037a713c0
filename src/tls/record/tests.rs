//! The record layer beside rustls, and beside what the RFCs have.

mod differential;
mod known;
mod parts;
mod random;
