//! What an upgrade tells: each step as it is done, and how it ended.

use serde::Serialize;

/// How an upgrade ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Done {
    /// The source has the program that runs.
    UpToDate {
        /// The SHA-256 of the program, as hexadecimal digits.
        sha256: String,
    },
    /// The source has a program that the service would not have before: it is not tried again.
    KnownBad {
        /// The SHA-256 of that program.
        sha256: String,
        /// What it did.
        reason: String,
    },
    /// A new program passed all that can be looked at without installing it:
    /// [`Upgrade::look`](super::Upgrade::look).
    Available {
        /// The SHA-256 of the new program.
        sha256: String,
        /// The SHA-256 of the program that runs.
        current: String,
    },
    /// The service runs the new program.
    Upgraded {
        /// The SHA-256 of the new program.
        sha256: String,
        /// The SHA-256 of the one before.
        previous: String,
    },
    /// The new program is in place; nobody was asked to reload:
    /// [`UpgradeBuilder::install_only`](super::UpgradeBuilder::install_only).
    Installed {
        /// The SHA-256 of the new program.
        sha256: String,
        /// The SHA-256 of the one before.
        previous: String,
    },
}

/// What has just been done. Killed after any of them, an upgrade leaves a whole program in place,
/// and the next one goes on from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum UpgradeStep {
    /// No other upgrade of the program runs.
    Locked,
    /// An upgrade that was cut short after the install is taken up: the service is asked again.
    Resumed {
        /// The SHA-256 of what it installed.
        sha256: String,
    },
    /// The candidate has come.
    Fetched {
        /// The SHA-256 of the candidate.
        sha256: String,
    },
    /// Its SHA-256, signature and format are good.
    Verified,
    /// It has passed the check.
    Checked,
    /// It is on the disk, among the versions.
    Kept,
    /// So is the program that it replaces.
    PreviousKept,
    /// What is going to be done is on the disk.
    Recorded,
    /// It is the program.
    Installed,
    /// The service has it.
    Taken,
    /// The service would not have it, or did not answer.
    NotTaken {
        /// Why it did not.
        reason: String,
    },
    /// The program of before is the program again.
    Restored,
    /// The outcome is on the disk.
    Settled,
    /// Versions that are not kept are gone.
    Pruned,
}
