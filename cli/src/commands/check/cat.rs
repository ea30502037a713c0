//! What `systemctl cat` prints: units and drop-ins, each after a line `# /its/path`. Pure.

use super::directives::{SERVICE, SOCKET};
use super::name::UnitName;
use super::unit::{File, Unit};

/// The units of such a text. Without any `# /path` it is one unit, whose type its sections tell.
pub(super) fn split(text: &[u8]) -> Result<Vec<Unit>, String> {
    let mut units: Vec<Unit> = Vec::new();
    let mut pieces: Vec<(Option<Source>, Vec<u8>)> = vec![(None, Vec::new())];
    for line in text.split_inclusive(|c| *c == b'\n') {
        if let Some(source) = source(line) {
            pieces.push((Some(source), Vec::new()));
        } else if let Some((_, bytes)) = pieces.last_mut() {
            bytes.extend_from_slice(line);
        }
    }
    let marked = pieces.len() > 1;
    for (source, bytes) in pieces {
        match source {
            // What stands before the first mark is a remark of systemctl's, if anything.
            None if marked => {}
            None => units.push(unmarked(&bytes)?),
            // The lines are those of the file itself: systemctl prints it as it is.
            Some((Some(name), path)) => units.push(Unit { name, files: vec![File::new(path, &bytes)] }),
            Some((None, path)) => match units.last_mut() {
                Some(unit) => unit.files.push(File::new(path, &bytes)),
                None => return Err(format!("{path} comes before the unit that it is for")),
            },
        }
    }
    Ok(units)
}

/// What `# /its/path` names: a unit, or `None` for a drop-in.
type Source = (Option<UnitName>, String);

fn source(line: &[u8]) -> Option<Source> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    // Blue where it was printed on a terminal.
    let line = line.strip_prefix("\u{1b}[0;34m").unwrap_or(line).trim_end_matches("\u{1b}[0m");
    let path = line.strip_prefix("# ").filter(|p| p.starts_with('/') && !p.contains(char::is_whitespace))?;
    let (directory, file) = path.rsplit_once('/')?;
    let name = UnitName::parse(file);
    let of = directory.rsplit('/').next().and_then(|directory| directory.strip_suffix(".d"));
    let of_a_unit = of.is_some_and(|of| UnitName::parse(of).is_some() || matches!(of, "service" | "socket"));
    (name.is_some() || file.ends_with(".conf") && of_a_unit).then(|| (name, path.to_owned()))
}

fn unmarked(bytes: &[u8]) -> Result<Unit, String> {
    let file = File::new("-", bytes);
    let name = match (file.has_section(SERVICE), file.has_section(SOCKET)) {
        (true, false) => "stdin.service",
        (false, true) => "stdin.socket",
        (true, true) => {
            let advice = "put a line `# /path/of/NAME.service` before each, as `systemctl cat` does";
            return Err(format!("two units in one text: {advice}"));
        }
        (false, false) => return Err("there is neither a [Service] nor a [Socket]".to_owned()),
    };
    let name = UnitName::parse(name).ok_or(name)?;
    Ok(Unit { name, files: vec![file] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn described(text: &str) -> Vec<String> {
        let units = split(text.as_bytes()).unwrap();
        units
            .iter()
            .map(|u| format!("{}: {}", u.name, u.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>().join(" ")))
            .collect()
    }

    #[test]
    fn units_and_their_drop_ins() {
        let text = "# /lib/systemd/system/w.service\n[Service]\nType=simple\n# /etc/w.toml is read\n\n\
                    # /etc/systemd/system/w.service.d/a.conf\n[Service]\nType=notify\n\n# /run/w.socket\n[Socket]\n";
        let expected = [
            "w.service: /lib/systemd/system/w.service /etc/systemd/system/w.service.d/a.conf",
            "w.socket: /run/w.socket",
        ];
        assert_eq!(described(text), expected);
        let units = split(text.as_bytes()).unwrap();
        let kind = units[0].text(SERVICE, "Type").unwrap();
        assert_eq!((kind.value(), kind.place().line), ("notify", 2), "the line in that file");
    }

    #[test]
    fn one_unit_needs_no_mark() {
        assert_eq!(described("[Unit]\n[Service]\n"), ["stdin.service: -"]);
        assert_eq!(described("[Socket]\n"), ["stdin.socket: -"]);
        assert!(split(b"[Service]\n[Socket]\n").unwrap_err().contains("systemctl cat"));
        assert!(split(b"").is_err() && split(b"# /etc/a.service.d/x.conf\n").is_err());
    }

    proptest! {
        #![proptest_config(crate::commands::check::fixed_seed(5))]
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = split(&bytes);
        }
    }
}
