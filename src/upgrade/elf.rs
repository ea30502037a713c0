//! Whether a file is a whole program of this machine, as far as its headers tell.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// The header of a 64-bit ELF file; in a 32-bit one the fields lie elsewhere.
#[derive(Debug, PartialEq, Eq)]
struct ElfHeader {
    /// Class, byte order: how all else is to be read.
    ident: [u8; 2],
    kind: u16,
    machine: u16,
    programs: HeaderTable,
    sections: HeaderTable,
}

#[derive(Debug, PartialEq, Eq)]
struct HeaderTable {
    at: u64,
    entry: u64,
    entries: u64,
}

/// Checks that the candidate is a program of this machine. The error says why it is none.
pub(crate) fn check(file: &File) -> Result<(), String> {
    let length = file.metadata().map_err(|e| format!("it cannot be looked at: {e}"))?.len();
    if length == 0 {
        return Err("it is empty".into());
    }
    let header = header(file).ok_or_else(|| match first(file) {
        [b'#', b'!', ..] => "it is a script: say so if that is what it should be".to_owned(),
        [0x1f, 0x8b, ..] => "it is compressed: what is fetched must be the program itself".to_owned(),
        [b'<', ..] | [b'{', ..] => "it is text, such as the page of an error".to_owned(),
        _ => "it is no ELF file".to_owned(),
    })?;
    // Ourselves: a table of the names of machines would only get old.
    let own = File::open("/proc/self/exe").map_err(|e| format!("/proc/self/exe cannot be read: {e}"))?;
    let own = self::header(&own).ok_or("/proc/self/exe is no ELF file")?;
    if (header.ident, header.machine) != (own.ident, own.machine) {
        return Err(format!(
            "it is for another architecture: {}, and this machine's is {}",
            machine(&header),
            machine(&own)
        ));
    }
    // Executable, or shared: what is linked as position-independent.
    if !matches!(header.kind, 2 | 3) {
        return Err(format!("it is an ELF file that is no program (type {})", header.kind));
    }
    if header.programs.entries == 0 {
        return Err("it is an ELF file that is no program: it has nothing to load".into());
    }
    let cut = || format!("it is cut off: {length} bytes are there, and its headers tell of more");
    for table in [&header.programs, &header.sections] {
        let size = table.entry.checked_mul(table.entries).and_then(|size| size.checked_add(table.at));
        if size.is_none_or(|end| end > length) {
            return Err(cut());
        }
    }
    let wide = header.ident[0] == 2;
    for n in 0..header.programs.entries {
        let at = header.programs.at + n * header.programs.entry;
        let (offset, size) = if wide {
            (number(file, at + 8, 8), number(file, at + 32, 8))
        } else {
            (number(file, at + 4, 4), number(file, at + 16, 4))
        };
        let (Some(kind), Some(offset), Some(size)) = (number(file, at, 4), offset, size) else { return Err(cut()) };
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(cut());
        }
        if kind == 3
            && let Some(interpreter) = text(file, offset, size)
            && !interpreter.exists()
        {
            return Err(format!("it needs {}, which is not on this machine", interpreter.display()));
        }
    }
    Ok(())
}

fn first(file: &File) -> [u8; 4] {
    let mut bytes = [0; 4];
    let _ = file.read_at(&mut bytes, 0);
    bytes
}

fn header(file: &File) -> Option<ElfHeader> {
    let mut ident = [0; 6];
    file.read_exact_at(&mut ident, 0).ok()?;
    if ident[..4] != *b"\x7fELF" || !matches!(ident[4], 1 | 2) {
        return None;
    }
    if !reads_as_we_do(ident[5]) {
        // The fields cannot be read; that it is another architecture's is all that matters.
        let none = || HeaderTable { at: 0, entry: 0, entries: 0 };
        return Some(ElfHeader {
            ident: [ident[4], ident[5]],
            kind: 0,
            machine: 0,
            programs: none(),
            sections: none(),
        });
    }
    let field = |at: u64, size| number(file, at, size);
    let (word, tables, entries) = if ident[4] == 2 { (8, 32, 54) } else { (4, 28, 42) };
    let half = |at: u64| field(at, 2).and_then(|value| u16::try_from(value).ok());
    Some(ElfHeader {
        ident: [ident[4], ident[5]],
        kind: half(16)?,
        machine: half(18)?,
        programs: HeaderTable { at: field(tables, word)?, entry: field(entries, 2)?, entries: field(entries + 2, 2)? },
        sections: HeaderTable {
            at: field(tables + word as u64, word)?,
            entry: field(entries + 4, 2)?,
            entries: field(entries + 6, 2)?,
        },
    })
}

fn reads_as_we_do(order: u8) -> bool {
    order == if cfg!(target_endian = "little") { 1 } else { 2 }
}

/// Reads a number in this machine's byte order.
fn number(file: &File, at: u64, size: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes[..size], at).ok()?;
    Some(match size {
        2 => u16::from_ne_bytes([bytes[0], bytes[1]]).into(),
        4 => u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into(),
        _ => u64::from_ne_bytes(bytes),
    })
}

fn text(file: &File, at: u64, size: u64) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = vec![0; usize::try_from(size).ok().filter(|size| (1..=4096).contains(size))?];
    file.read_exact_at(&mut bytes, at).ok()?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

fn machine(header: &ElfHeader) -> String {
    let name = match header.machine {
        0 => "of another byte order",
        3 => "x86",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "64-bit PowerPC",
        22 => "S/390",
        40 => "32-bit ARM",
        62 => "x86-64",
        183 => "64-bit ARM",
        243 => "RISC-V",
        258 => "LoongArch",
        other => return format!("number {other}"),
    };
    let bits = if header.ident[0] == 2 { 64 } else { 32 };
    format!("{name} ({bits} bits)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check(file.as_file()).err().unwrap_or_default()
    }

    #[test]
    fn whole_programs_of_this_machine_pass_and_nothing_else() {
        let good = std::fs::read("/bin/sh").unwrap();
        assert_eq!(refused(&good), "");
        assert_eq!(check(&File::open("/proc/self/exe").unwrap()), Ok(()));
        for end in [5, 20, 63, 64, 100, 1000, good.len() / 2, good.len() - 1] {
            let why = refused(&good[..end]);
            assert!(
                why.contains("cut off") || why.contains("no ELF") || why.contains("nothing to load"),
                "{end}: {why}"
            );
        }
        let with = |at: usize, byte: u8| {
            let mut other = good.clone();
            other[at] = byte;
            refused(&other)
        };
        let arm = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
        assert!(with(18, arm).contains("another architecture"), "{}", with(18, arm));
        assert!(with(4, 1).contains("another architecture"), "32 bits");
        assert!(with(5, 2).contains("another byte order"), "{}", with(5, 2));
        assert!(with(16, 1).contains("no program"), "an object file");
        assert!(with(4, 9).contains("no ELF"));
        assert!(
            with(62, 0xff).contains("cut off") || with(60, 0xff).contains("cut off"),
            "more sections than are there"
        );
        for (bytes, why) in [
            (&b""[..], "empty"),
            (b"#!/bin/sh\n", "script"),
            (b"<html>", "text"),
            (b"{\"message\"", "text"),
            (b"\x1f\x8b\x08\x00", "compressed"),
            (b"MZ", "no ELF"),
        ] {
            assert!(refused(bytes).contains(why), "{}", refused(bytes));
        }
    }

    /// Whatever the headers say: an answer, no panic.
    #[test]
    fn no_headers_do_harm() {
        let good = std::fs::read("/bin/sh").unwrap();
        let head = &good[..4096.min(good.len())];
        for at in 0..120 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut other = head.to_vec();
                other[at] = byte;
                let _ = refused(&other);
            }
        }
    }
}
