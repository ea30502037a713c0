//! What an upgrade reads, with any bytes.

use std::io::Write as _;

use minisign_verify::Signature;

use crate::sys::memfd;
use crate::upgrade::comment::TrustedComment;
use crate::upgrade::{elf, trust};

/// A signature, and the comment that is signed with the program.
pub(crate) fn signature(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let of = |comment: &str| {
        let comment = TrustedComment::parse(comment);
        let _ = (comment.check_name("x", ["web", "web-1"]).is_ok(), comment.check_age("x", Some(7)).is_ok());
    };
    of(text);
    if let Ok(signature) = Signature::decode(text) {
        of(signature.trusted_comment());
    }
}

/// A list of checksums.
pub(crate) fn checksums(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(sum) = trust::sum_of(&text, "web") {
        assert_eq!(sum.len(), 64, "a SHA-256");
    }
}

/// The headers of a program.
pub(crate) fn elf(bytes: &[u8]) {
    let file = memfd::create(c"fuzz").and_then(|mut file| file.write_all(bytes).map(|()| file));
    let _ = elf::check(&file.expect("memory for a file")).is_ok();
}
