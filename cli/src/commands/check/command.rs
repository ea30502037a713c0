//! Lines of `ExecStart=`, `ExecReload=` and their like.

use super::directives::SERVICE;
use super::unit::{Setting, Unit};
use super::value;
use handover::supervise::signal_name;

/// The command of `ExecReload=` that waits for the outcome and fails with the reason.
pub(super) const RELOAD: &str = "/usr/bin/handover reload $MAINPID";
/// May stand before the path.
pub(super) const PREFIXES: [char; 6] = ['+', '!', '-', '@', ':', '|'];

/// What one command of a line runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exec {
    pub(super) prefixes: String,
    pub(super) path: String,
    pub(super) arguments: Vec<String>,
}

impl Exec {
    /// The commands of one line; several are separated by `;`.
    pub(super) fn parse(line: &str) -> Vec<Self> {
        let all = value::words(line);
        all.split(|word| word == ";").filter_map(Self::from_words).collect()
    }

    fn from_words(words: &[String]) -> Option<Self> {
        let (first, rest) = words.split_first()?;
        let path = first.trim_start_matches(PREFIXES);
        let prefixes = first[..first.len() - path.len()].to_owned();
        // With `@` the second word is what the program is called.
        let skipped = usize::from(prefixes.contains('@')).min(rest.len());
        Some(Self { prefixes, path: path.to_owned(), arguments: rest[skipped..].to_vec() })
    }

    pub(super) fn program(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn is_shell(&self) -> bool {
        matches!(self.program(), "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh")
    }

    /// The script, where it is a shell's.
    pub(super) fn script(&self) -> Option<&str> {
        let at = self.arguments.iter().position(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with('c'))?;
        self.arguments.get(at + 1).map(String::as_str).filter(|_| self.is_shell())
    }

    /// The command itself; of a script those in it, but for further shells.
    pub(super) fn simple(&self) -> Vec<Self> {
        let Some(script) = self.script() else { return vec![self.clone()] };
        let mut all = Self::parse(&script.replace([';', '&', '|', '\n'], " ; "));
        all.retain(|exec| exec.script().is_none());
        all
    }

    /// Whether one of these words is among its arguments.
    pub(super) fn has(&self, words: &[&str]) -> bool {
        self.arguments.iter().any(|argument| words.contains(&argument.as_str()))
    }

    /// The tool of this crate, asked for a reload: it waits for the outcome.
    pub(super) fn is_handover_reload(&self) -> bool {
        let here = self.program() == "handover" && self.has(&["reload"]);
        here || self.script().is_some_and(|script| script.contains("handover reload"))
    }

    /// The signal that it sends and does not wait for: `kill`, also within a shell's script.
    pub(super) fn kills_with(&self) -> Option<String> {
        self.simple().iter().find_map(Self::kill)
    }

    fn kill(&self) -> Option<String> {
        if !matches!(self.program(), "kill" | "pkill" | "killall") {
            return None;
        }
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            let named = match argument.as_str() {
                "-s" | "--signal" | "-n" => arguments.next().map(String::as_str),
                other => other
                    .strip_prefix("--signal=")
                    .or_else(|| other.strip_prefix("-s"))
                    .or_else(|| other.strip_prefix('-')),
            };
            if let Some(signal) = named.and_then(|n| signal_name(&n.to_uppercase())) {
                return Some(signal);
            }
        }
        Some("TERM".to_owned())
    }
}

impl Unit {
    /// The commands of a setting, with the line that each is from.
    pub(super) fn commands<'a>(&'a self, key: &'a str) -> Vec<(Exec, Setting<'a>)> {
        let lines = self.list(SERVICE, key).into_iter();
        lines.flat_map(|s| Exec::parse(&s.expanded()).into_iter().map(move |exec| (exec, s))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(line: &str) -> Exec {
        Exec::parse(line).remove(0)
    }

    #[test]
    fn prefixes_and_several_commands() {
        let all = Exec::parse("-@/bin/a b c ; !!/bin/d \"e ; f\"");
        assert_eq!(all[0], Exec { prefixes: "-@".into(), path: "/bin/a".into(), arguments: vec!["c".into()] });
        assert_eq!((all[1].prefixes.as_str(), all[1].arguments.as_slice()), ("!!", &["e ; f".to_owned()][..]));
        assert!(Exec::parse("").is_empty() && Exec::parse(" ; ").is_empty());
    }

    #[test]
    fn signals_of_kill() {
        for (line, signal) in [
            ("/bin/kill -HUP $MAINPID", Some("HUP")),
            ("/bin/kill -s HUP $MAINPID", Some("HUP")),
            ("kill -1 $MAINPID", Some("HUP")),
            ("/bin/kill -SIGHUP $MAINPID", Some("HUP")),
            ("/usr/bin/pkill --signal=HUP x", Some("HUP")),
            ("/bin/sh -c 'test -e /x && kill -HUP $MAINPID'", Some("HUP")),
            ("/bin/bash -ec \"kill -s SIGHUP 1\"", Some("HUP")),
            ("/bin/kill $MAINPID", Some("TERM")),
            ("/bin/kill -USR2 $MAINPID", Some("USR2")),
            ("/usr/sbin/nginx -s reload", None),
            ("/bin/sh -c", None),
        ] {
            assert_eq!(first(line).kills_with().as_deref(), signal, "{line}");
        }
    }

    #[test]
    fn our_own_reload() {
        assert!(first("/usr/bin/handover reload $MAINPID").is_handover_reload());
        assert!(first("/bin/sh -c 'exec handover reload web.service'").is_handover_reload());
        assert!(!first("/usr/bin/handover status").is_handover_reload());
    }
}
