//! What the tool reads that others have written, for the fuzz targets.

use crate::commands::{check, timeline};

/// Judges these units, as `systemctl cat` prints them, and writes every kind of report.
pub fn units(text: &[u8]) {
    check::fuzz(text);
}

/// Draws these entries of the journal, as `journalctl -o json` prints them, in every way.
pub fn journal(text: &[u8]) {
    timeline::fuzz(text);
}
