//! The `MESSAGE_ID` of each event of a service's life in the journal.
//!
//! Each event that the module `logging` (feature `journald`) sends to journald has a field `MESSAGE_ID`, by which programs find it and
//! `journalctl -x` explains it, from the message catalog `packaging/handover.catalog`. An id never changes its meaning; the text of a
//! message may. What fields each has is in [`docs::timeline`](crate::docs::timeline).
//!
//! ```sh
//! journalctl -u web.service MESSAGE_ID=765edeee2c25452b996c5b995d14ff08   # reloads that failed
//! ```

macro_rules! events {
    ($($(#[$doc:meta])+ $name:ident = $id:literal;)+) => {
        $($(#[$doc])+ pub const $name: &str = $id;)+

        /// All of them: what the constant is called, and the id.
        pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),+];
    };
}

events! {
    /// A first generation serves: a start, or a restart.
    SERVES = "b5c8a6b0b0b3469393f9fcced9b0ecce";
    /// A reload begins.
    RELOAD_STARTED = "b77e0132eb5a4eb89fe2129b8be81ce0";
    /// The next generation's process runs.
    SPAWNED = "05f9db0921164003aeca1e40eaf9599a";
    /// The next generation said that it is ready.
    READY = "0cd16f60fd6b448499946d9cf63ce9d0";
    /// The next generation accepts; the old one stops accepting.
    SWITCHED = "aeb0826c5a3b4a05845a6639ee560eb3";
    /// The old generation has handed over. The reload is a success from here on.
    HANDED_OVER = "2a755cd75f49413eb21fd6a8a5c9cbd0";
    /// The new generation says that it is main.
    MAIN = "ab8f47e81693431e97a30375cebb1c91";
    /// A generation begins to finish what it accepted.
    DRAIN_STARTED = "a3288afcef174c09808237f44af2e8dd";
    /// A generation has finished what it accepted, and exits.
    DRAINED = "d36cfa3c9c214d83aef14cebd4f2ac60";
    /// The drain timeout was over: what was left was cut.
    HAMMERED = "bcf873883b104283811f8e83ed1c9c2a";
    /// One of the connections that were cut.
    CUT = "c927b3e82a0447abaadae2c4fd14cd0d";
    /// The next generation failed; the old one serves on.
    RELOAD_FAILED = "765edeee2c25452b996c5b995d14ff08";
    /// A reload that needed no new generation.
    RELOADED_IN_PLACE = "64f62fc645964613b42612eca1279e29";
    /// The other generation died during the handover; this one serves.
    RECLAIMED = "f6b46a1ee7af432c90070037ca54b5a0";
    /// A generation that was rolled back has ended.
    NEXT_ENDED = "e29b9b04d64b4ec1b0d257e5e33f3832";
    /// Too many generations drain; the oldest is hammered.
    TOO_MANY_DRAIN = "960e29f167234334957517c1c64326d8";
    /// A draining generation hung, and was killed.
    DRAINER_KILLED = "9bcacfbf1c844a95b06fe76e0fcf043b";
    /// The service was told to stop.
    STOP = "8b2b91128d8b4f39aa3f958040bb5f26";
    /// The application's own check failed, or hung: the watchdog is not fed.
    UNHEALTHY = "7fbcf5385a4845c0b60860a81cf5c3c7";
    /// It passes again.
    HEALTHY = "1c973c0bae5f46d68d3a486bcd0590ba";
    /// This generation gave up before it came to serve.
    FAILED = "b1f80a339fef46878428c127280d9ce0";
    /// The previous generation told this one to go.
    DISMISSED = "82bbdcdd1c4a4a889a3bc94b081c74c3";
    /// A process of a supervised program has ended that nobody had told to; it is started again.
    CRASHED = "154c3ce1154b4556a1cee0f527395a8c";
    /// After a loop of crashes a supervised program's last good version is started instead of what is at its path.
    WENT_BACK = "071f3419f47a4f6fb2660d6dc7782089";
    /// A supervisor goes on as a new version of itself.
    RENEWED = "8c5d975b6ae349578e0349fbc89a9e47";
    /// A new program is in place of the running one; the service is asked to reload.
    UPGRADE_INSTALLED = "2cfa92ad9008405aab6ca2b08ed0b038";
    /// The service runs its new program.
    UPGRADED = "4bccadc1652d48c3a04b7606fbb9345d";
    /// The service does not run its new program; the one of before is back in place.
    UPGRADE_FAILED = "68d5edbe88484ff482673d3bce6f879f";
    /// A new program is not what it should be, and was not installed.
    UPGRADE_REFUSED = "a90fc51967154f9e94679849670ca486";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    const CATALOG: &str = include_str!("../../packaging/handover.catalog");
    const CHAPTER: &str = include_str!("../docs/timeline.md");

    #[test]
    fn ids_are_128_bits_and_unique() {
        let unique: BTreeSet<_> = ALL.iter().map(|(_, id)| id).collect();
        assert_eq!(unique.len(), ALL.len());
        let is_hex = |id: &str| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(ALL.iter().all(|(_, id)| is_hex(id)));
    }

    #[test]
    fn the_catalog_explains_each_and_no_other() {
        let ours: BTreeSet<_> = ALL.iter().map(|(_, id)| *id).collect();
        let explained: Vec<_> = CATALOG.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(explained.len(), ours.len(), "each once");
        assert_eq!(explained.into_iter().collect::<BTreeSet<_>>(), ours);
        for entry in CATALOG.split("\n-- ").skip(1) {
            let (id, rest) = entry.split_once('\n').unwrap();
            let (head, text) = rest.split_once("\n\n").expect("an empty line ends the head");
            assert!(head.contains("Subject: ") && head.contains("Defined-By: handover"), "{id}");
            assert!(!text.trim().is_empty() && !text.contains('\t'), "{id} says nothing");
        }
    }

    #[test]
    fn the_chapter_lists_each() {
        for (name, id) in ALL {
            assert!(CHAPTER.lines().any(|l| l.contains(&format!("`{name}`")) && l.contains(id)), "{name} {id}");
        }
    }

    #[test]
    fn each_is_logged_somewhere() {
        let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let directories = ["service/driver", "service", "supervise", "upgrade"].map(|d| top.join(d));
        let files = directories.into_iter().flat_map(|d| std::fs::read_dir(d).unwrap().flatten());
        let sources: String = files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
        for (name, _) in ALL {
            assert!(sources.contains(&format!("message_id = events::{name},")), "{name}");
        }
    }
}
