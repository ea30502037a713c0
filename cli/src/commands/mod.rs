//! The commands, each with its options and their help.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod init;
pub(crate) mod manual;
pub(crate) mod pause;
pub(crate) mod prove;
pub(crate) mod reload;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod timeline;
pub(crate) mod upgrade;
// A symbolic link to the published example: the demo runs exactly that, from this binary alone,
// also where only this package is.
#[expect(dead_code, reason = "the example's own main is not called here")]
pub(crate) mod web;
