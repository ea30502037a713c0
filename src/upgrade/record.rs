//! What is remembered of a program's upgrades, from one to the next.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::sys::folder::Folder;
use crate::upgrade::place;

/// How many bad programs are remembered; of more, the oldest is forgotten.
pub const BAD_KEPT: usize = 100;

/// A reason is remembered up to here; the journal has all of it.
const REASON_KEPT: usize = 300;

const FORMAT: u32 = 1;

const FILE: &str = "state.json";

/// The file `state.json`, which is only ever replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    /// An upgrade that is under way, or was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Pending>,
    /// The programs before this one, the newest first.
    #[serde(default)]
    pub(crate) previous: Vec<String>,
    #[serde(default)]
    pub(crate) bad: Vec<Bad>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Seen>,
    /// When the newest signature was made of those whose program was taken: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signed: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) sha256: String,
    pub(crate) previous: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Seen>,
    /// Asked for by hand: the one that it replaces shall not come back.
    #[serde(default)]
    pub(crate) back: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signed: Option<u64>,
}

/// A program that the service would not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bad {
    pub(crate) sha256: String,
    pub(crate) reason: String,
    pub(crate) unix_s: u64,
}

/// What a source had, and how to ask whether it still has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<String>,
    /// The version of an asset of a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

impl Record {
    pub(crate) fn read(folder: &Folder) -> Result<Self> {
        let Some(bytes) = place::read(folder, FILE)? else {
            return Ok(Self { format: FORMAT, ..Self::default() });
        };
        let path = folder.path().join(FILE);
        let bad = |why: String| {
            let text = format!("{} cannot be used: {why}; remove it to forget what is known to be bad", path.display());
            Error::new(Kind::Invalid, text)
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if record.format != FORMAT {
            return Err(bad(format!("format {} is of another version of handover", record.format)));
        }
        Ok(record)
    }

    /// Writes the record. It is on the disk when this returns.
    pub(crate) fn write(&self, folder: &Folder) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::os("the record cannot be written", e))?;
        place::replace(folder, FILE, &text)
    }

    pub(crate) fn why_bad(&self, sha256: &str) -> Option<&str> {
        self.bad.iter().find(|bad| bad.sha256 == sha256).map(|bad| bad.reason.as_str())
    }

    pub(crate) fn add_bad(&mut self, sha256: &str, reason: &str) {
        self.forgive(sha256);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let reason = reason.chars().take(REASON_KEPT).collect();
        self.bad.push(Bad { sha256: sha256.to_owned(), reason, unix_s });
        let over = self.bad.len().saturating_sub(BAD_KEPT);
        self.bad.drain(..over);
    }

    pub(crate) fn forgive(&mut self, sha256: &str) {
        self.bad.retain(|bad| bad.sha256 != sha256);
    }

    /// Notes that `sha256` is the program now, in place of `previous`.
    pub(crate) fn took(&mut self, pending: Pending, keep: usize) {
        let Pending { sha256, previous, seen, back, signed } = pending;
        self.signed = self.signed.max(signed);
        self.forgive(&sha256);
        self.previous.retain(|kept| *kept != sha256 && *kept != previous);
        if back {
            self.add_bad(&previous, "it was taken back by hand");
        } else {
            self.previous.insert(0, previous);
            self.previous.truncate(keep);
            self.seen = seen;
        }
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(sha256: &str, previous: &str) -> Pending {
        Pending { sha256: sha256.into(), previous: previous.into(), seen: None, back: false, signed: None }
    }

    #[test]
    fn so_many_are_kept_the_newest_first() {
        let mut record = Record::default();
        for (new, old) in [("b", "a"), ("c", "b"), ("d", "c"), ("a", "d")] {
            record.took(pending(new, old), 2);
        }
        assert_eq!(record.previous, ["d", "c"]);
        record.took(Pending { back: true, ..pending("d", "a") }, 2);
        assert_eq!(record.previous, ["c"]);
        assert_eq!(record.why_bad("a"), Some("it was taken back by hand"));
        record.took(pending("a", "d"), 0);
        assert_eq!((record.why_bad("a"), record.previous.len()), (None, 0), "tried again, and good");
    }

    #[test]
    fn the_newest_signature_is_remembered() {
        let mut record = Record::default();
        for (signed, newest) in
            [(None, None), (Some(5), Some(5)), (Some(3), Some(5)), (None, Some(5)), (Some(9), Some(9))]
        {
            record.took(Pending { signed, ..pending("b", "a") }, 2);
            assert_eq!(record.signed, newest);
        }
    }

    #[test]
    fn bad_ones_are_remembered_and_not_without_end() {
        let mut record = Record::default();
        for n in 0..BAD_KEPT + 5 {
            record.add_bad(&n.to_string(), &"x".repeat(1000));
            record.add_bad(&n.to_string(), "again");
        }
        assert_eq!(record.bad.len(), BAD_KEPT);
        assert_eq!((record.why_bad("4"), record.why_bad("5")), (None, Some("again")));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::open(directory.path(), crate::sys::folder::Way::Ours).unwrap();
        let mut record = Record::read(&folder).unwrap();
        record.add_bad("x", "y");
        record.pending = Some(pending("n", "p"));
        record.write(&folder).unwrap();
        assert_eq!(Record::read(&folder).unwrap(), record);
        for text in ["", "{", "[]", "{\"format\":2}"] {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            let error = Record::read(&folder).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains("state.json"), "{error}");
        }
    }
}
