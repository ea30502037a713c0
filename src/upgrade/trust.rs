//! Whose programs are taken: signatures and checksums.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use minisign_verify::{PublicKey, Signature};

use crate::error::{Error, Kind, Result};
use crate::sys::folder::open_regular;
use crate::upgrade::comment::TrustedComment;

/// A file of a key is small.
const MAX_KEY_FILE: u64 = 4096;

/// Whose signature a candidate must have.
#[derive(Debug, Clone)]
pub struct Trust(pub(crate) Vec<PublicKey>);

impl Trust {
    /// Trusts the signatures of these [minisign](https://jedisct1.github.io/minisign/) keys
    /// (Ed25519): each is the line that begins with `RW`, as it stands in the key's file. There may
    /// be several, so that a key can be replaced.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: one is no key, or there is none.
    pub fn keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let keys = keys.into_iter().map(|text| {
            let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            PublicKey::from_base64(line)
                .map_err(|e| Error::new(Kind::Invalid, format!("{line:?} is no public key of minisign: {e}")))
        });
        let keys: Vec<_> = keys.collect::<Result<_>>()?;
        if keys.is_empty() {
            return Err(Error::new(Kind::Invalid, "no key is trusted: nothing could be verified"));
        }
        Ok(Self(keys))
    }

    /// Trusts the keys, as [`keys`](Self::keys) does, of a file such as `minisign.pub`.
    ///
    /// # Errors
    /// It fails as [`keys`](Self::keys) does, or the file cannot be read.
    pub fn key_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut text = String::new();
        let read = open_regular(path).and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut text));
        read.map_err(|e| Error::caused(Kind::Invalid, format!("the key {} cannot be read", path.display()), e))?;
        Self::keys([text.as_str()])
    }

    /// Trusts these keys, too.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Takes what is there, whoever has made it; but not over plain `http://`, unless its checksum
    /// is given.
    #[must_use]
    pub fn unsigned() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn is_unsigned(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the whole file, and returns what was signed with it. It blocks.
    pub(crate) fn verify(&self, candidate: (&File, &Path), signature: &[u8], what: &str) -> Result<TrustedComment> {
        let bad = |why: &dyn std::fmt::Display| {
            Error::new(Kind::Candidate, format!("the signature of {what} is not good: {why}"))
        };
        let text = std::str::from_utf8(signature).map_err(|_| bad(&"it is no text"))?;
        let signature = Signature::decode(text).map_err(|e| bad(&e))?;
        let mut last = None;
        for key in &self.0 {
            let mut verifier = match key.verify_stream(&signature) {
                Ok(verifier) => verifier,
                Err(minisign_verify::Error::UnexpectedKeyId) => continue,
                Err(minisign_verify::Error::UnsupportedLegacyMode) => {
                    return Err(bad(&"it is of the legacy format: sign with minisign 0.11 or later, or with -H"));
                }
                Err(e) => return Err(bad(&e)),
            };
            each_chunk(candidate.0, candidate.1, |chunk| verifier.update(chunk))?;
            match verifier.finalize() {
                Ok(()) => return Ok(TrustedComment::parse(signature.trusted_comment())),
                Err(e) => last = Some(e),
            }
        }
        Err(match last {
            Some(_) => bad(&"it is not of this file"),
            None => bad(&"it was made with another key than those that are trusted"),
        })
    }
}

/// Reads the whole file, wherever it was read up to.
pub(crate) fn each_chunk(file: &File, path: &Path, mut take: impl FnMut(&[u8])) -> Result<()> {
    let failed = |e| Error::os(format!("{} cannot be read", path.display()), e);
    let mut chunk = vec![0; 64 * 1024];
    let mut at = 0;
    loop {
        match file.read_at(&mut chunk, at) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                take(&chunk[..n]);
                at += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

/// What SHA-256 a candidate must have.
#[derive(Debug, Clone)]
pub(crate) enum Sum {
    Given(String),
    /// It stands in a list of this name, which lies beside the program.
    In(String),
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn checked_hex(text: &str) -> Result<String> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err(Error::new(Kind::Invalid, format!("{text:?} is no SHA-256: that has 64 hexadecimal digits")))
}

/// Finds the checksum of a file in a list as `sha256sum` writes it, or in the digits alone.
pub(crate) fn sum_of(list: &str, file: &str) -> Option<String> {
    let mut lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let of = |line: &str| {
        let (sum, name) = line.split_once(char::is_whitespace)?;
        let name = name.trim_start().trim_start_matches('*');
        (name.rsplit('/').next() == Some(file)).then(|| checked_hex(sum).ok())?
    };
    let found = lines.clone().find_map(of);
    found.or_else(|| lines.next().filter(|_| lines.next().is_none()).and_then(|only| checked_hex(only).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_checksums() {
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let list = format!("# made by hand\n{a}  web-arm\n{b} *./dist/web\nnonsense\n");
        assert_eq!(sum_of(&list, "web"), Some(b.to_lowercase()));
        assert_eq!(sum_of(&list, "web-arm"), Some(a.clone()));
        assert_eq!(sum_of(&list, "other"), None);
        assert_eq!(sum_of(&format!("{a}\n"), "any"), Some(a.clone()), "of one file");
        assert_eq!(sum_of(&format!("{a}\n{a}\n"), "any"), None);
        assert_eq!(sum_of(&format!("{}  web", &a[1..]), "web"), None, "too short");
        assert!(checked_hex("12").unwrap_err().is_invalid());
    }

    #[test]
    fn keys_are_lines_or_files() {
        let line = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        assert_eq!(Trust::keys([line]).unwrap().0.len(), 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("untrusted comment: minisign public key\n{line}\n")).unwrap();
        assert_eq!(Trust::key_file(file.path()).unwrap().and(Trust::keys([line]).unwrap()).0.len(), 2);
        for bad in ["", "RW", "hello", &line[2..]] {
            assert!(Trust::keys([bad]).unwrap_err().is_invalid(), "{bad}");
        }
        assert!(Trust::keys([]).unwrap_err().is_invalid());
        assert!(Trust::key_file("/nowhere").unwrap_err().is_invalid());
    }
}
