//! The table of the settings. Whatever lists them is made from it.

use std::path::PathBuf;
use std::time::Duration;

use super::idle::ExitOnIdle;
use super::migrate::{KeepOnStop, Migrate};
use super::pressure::HurryUnderPressure;
use super::value::{Setting, SettingRow, SettingValue};
use crate::error::{Error, Kind, Result};

/// Gives the table to a macro, which makes something of each setting.
///
/// A setting has its text for the docs, its name and type, the constant with its default, and the
/// default as it is written. `zero` says what a 0 would do, where none is allowed. The settings of
/// the second part have no default that is a value.
macro_rules! each_setting {
    ($make:ident) => {
        $make! {
            default {
                /// How long a next generation may take until it is ready.
                ready_timeout: Duration = READY_TIMEOUT: Duration::from_secs(30), "30s",
                    zero "would fail every reload";
                /// How long a ready generation may take to confirm that it accepts.
                switch_timeout: Duration = SWITCH_TIMEOUT: Duration::from_secs(5), "5s",
                    zero "would fail every reload";
                /// How long a next generation serves before it becomes main. Until then the old one
                /// can take over again at once.
                probation: Duration = PROBATION: Duration::ZERO, "0s";
                /// How long the service manager may take to read of its new main process, before
                /// the old one goes on without knowing.
                handover_timeout: Duration = HANDOVER_TIMEOUT: Duration::from_secs(10), "10s",
                    zero "would not wait for systemd at all";
                /// How long a ready generation waits to be told to accept.
                standby_timeout: Duration = STANDBY_TIMEOUT: Duration::from_secs(60), "60s",
                    zero "would end every next generation";
                /// How long accepted work may take to finish after a handover or a stop, before it
                /// is cut.
                drain_timeout: Duration = DRAIN_TIMEOUT: Duration::from_secs(30), "30s",
                    zero "would cut every request";
                /// How long accepted work may take if a new main generation has died: the manager's
                /// restart of the service waits for it.
                hurry_timeout: Duration = HURRY_TIMEOUT: Duration::from_millis(500), "500ms";
                /// Under which pressure on the machine a generation that has handed over hurries:
                /// connections that are idle are closed after a tenth of a second, and what is in
                /// hand is finished. The unit must have it told (`MemoryPressureWatch=on`).
                hurry_under_pressure: HurryUnderPressure =
                    HURRY_UNDER_PRESSURE: HurryUnderPressure::Never, "never";
                /// How long an idle connection is kept for one more request after a handover. If
                /// this is shorter than the pauses of most clients, some of their requests are
                /// lost.
                linger: Duration = LINGER: Duration::from_secs(5), "5s";
                /// How long an idle connection is kept for one more request when the service stops,
                /// which a restart waits for. It is never kept longer than `linger`.
                stop_linger: Duration = STOP_LINGER: Duration::from_secs(1), "1s";
                /// Which connections go to another process, rather than be finished by this one:
                /// those of a reload, of a restart, too, or even of a crash.
                migrate: Migrate = MIGRATE: Migrate::Reload, "reload";
                /// Within which time after a handover all connections that can move do, unless
                /// there is a hurry. In a shorter one their clients feel it.
                move_within: Duration = MOVE_WITHIN: Duration::from_secs(2), "2s";
                /// How it is found out whether a stop is the first half of a restart, so that
                /// connections are kept for the start (with `migrate` set to `restart`).
                keep_on_stop: KeepOnStop = KEEP_ON_STOP: KeepOnStop::Ask, "ask";
                /// How long ago a connection may have been kept for it to be served at a start.
                /// One that has waited for longer is closed.
                resume_within: Duration = RESUME_WITHIN: Duration::from_secs(60), "60s";
                /// How long a generation must be main until the service counts as healthy, and its
                /// next restart waits no longer than the first one did (`RESTART_RESET=1`, systemd
                /// 258).
                healthy_after: Duration = HEALTHY_AFTER: Duration::from_secs(30), "30s",
                    zero "would let a service that fails at once start again without a pause";
                /// After how long without a connection or other work the service exits, until a
                /// client comes. All its sockets must come from .socket units: systemd starts the
                /// service again. What is in the fd store stays only with
                /// `FileDescriptorStorePreserve=yes`.
                exit_on_idle: ExitOnIdle = EXIT_ON_IDLE: ExitOnIdle::Never, "never";
                /// How long a hook may take that has no
                /// [timeout of its own](crate::service::hooks::Hook::timeout).
                hook_timeout: Duration = HOOK_TIMEOUT: Duration::from_secs(10), "10s",
                    zero "would fail every hook";
                /// How many old generations may drain at once before the oldest is hammered.
                max_draining: usize = MAX_DRAINING: 8, "8",
                    zero "the generation that hands over could not finish its requests";
                /// How long a reload waits for one of the old generations when as many drain as
                /// may. Then it begins, and the oldest is hammered when there is one more.
                draining_wait: Duration = DRAINING_WAIT: Duration::from_secs(10), "10s";
            }
            no_default {
                /// The name of one of the [presets](crate::service::signals::SignalMap::PRESETS)
                /// that say which signal does what.
                signals: String = SIGNALS: "`\"default\"`";
                /// The path of a file with the pid of the main generation, see
                /// [`Builder::pidfile`](crate::Builder::pidfile).
                pidfile: PathBuf = PIDFILE: "none";
            }
        }
    };
}
pub(crate) use each_setting;

macro_rules! define {
    (
        default {$(
            $(#[$doc:meta])*
            $name:ident: $type:ty = $const:ident: $value:expr, $default:literal $(, zero $zero:literal)?;
        )*}
        no_default {$(
            $(#[$more_doc:meta])*
            $more:ident: $more_type:ty = $more_const:ident: $more_default:literal;
        )*}
    ) => {
        $($(#[$doc])* pub const $const: $type = $value;)*

        impl SettingRow {
            $(const $const: Self =
                Self { key: stringify!($name), default: $default, zero: [$(Some($zero),)? None][0] };)*
            $(const $more_const: Self = Self { key: stringify!($more), default: "", zero: None };)*
            /// All settings, in the order in which they are listed everywhere.
            pub(crate) const ALL: &[Self] = &[$(Self::$const,)* $(Self::$more_const,)*];
        }

        /// All timeouts, limits and policies of a service as one value. What is `None` was not
        /// said.
        ///
        /// A call of the [`Builder`](crate::Builder) wins over these, whichever comes first. Of the
        /// environment and a file, let the environment win:
        /// `Settings::from_env()?.over(Settings::from_toml(&text)?)`. Nothing is read unless it is
        /// asked for.
        ///
        /// Times are written as `"30s"`, `"500ms"` or `"1m 30s"`. A key or value that cannot be
        /// meant is an error that names it, and the line that it is in. What works and is odd is a
        /// warning when the service starts. What cannot be seen from inside, such as a
        /// `TimeoutStartSec=` below `ready_timeout`, is for the unit's linter, `handover check`. A
        /// `WatchdogSec=` below `ready_timeout` is no mistake: while a next generation gets ready
        /// the old one pings, and on a first start systemd counts from `READY=1`.
        ///
        /// | key | variable | default |
        /// |---|---|---|
        $(#[doc = concat!(
            "| `", stringify!($name), "` | `HANDOVER_", stringify!($const), "` | [`", $default,
            "`](", stringify!($const), ") |"
        )])*
        $(#[doc = concat!(
            "| `", stringify!($more), "` | `HANDOVER_", stringify!($more_const), "` | ", $more_default, " |"
        )])*
        ///
        /// It is an ordinary serde type as well, for a table in a configuration of one's own:
        ///
        /// ```
        /// #[derive(serde::Deserialize)]
        /// struct Config {
        ///     handover: handover::Settings,
        /// }
        /// let json = r#"{"handover": {"drain_timeout": "1m 30s"}}"#;
        /// let config: Config = serde_json::from_str(json).unwrap();
        /// assert_eq!(config.handover.drain_timeout, Some(std::time::Duration::from_secs(90)));
        /// let builder = handover::Service::builder().settings(config.handover);
        /// # drop(builder);
        /// ```
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Settings {
            $($(#[$doc])* pub $name: Option<$type>,)*
            $($(#[$more_doc])* pub $more: Option<$more_type>,)*
            /// What was odd where the settings were read.
            pub(crate) warnings: Vec<String>,
        }

        impl Settings {
            /// Takes these where they say something, and the others elsewhere.
            #[must_use]
            pub fn over(self, others: Self) -> Self {
                Self {
                    $($name: self.$name.or(others.$name),)*
                    $($more: self.$more.or(others.$more),)*
                    warnings: [others.warnings, self.warnings].concat(),
                }
            }

            /// Sets one by its key. `None`: there is no such setting. The error goes on from the
            /// key and its value.
            pub(super) fn set(&mut self, key: &str, value: SettingValue) -> Option<Result<(), String>> {
                Some(match key {
                    $(stringify!($name) => value.read(&mut self.$name, &SettingRow::$const),)*
                    $(stringify!($more) => value.read(&mut self.$more, &SettingRow::$more_const),)*
                    _ => return None,
                })
            }

            /// Gives those that were said, as they are written.
            pub(super) fn said(&self) -> impl Iterator<Item = (&'static SettingRow, SettingValue)> {
                let all = [
                    $(self.$name.as_ref().map(|setting| (&SettingRow::$const, setting.value())),)*
                    $(self.$more.as_ref().map(|setting| (&SettingRow::$more_const, setting.value())),)*
                ];
                all.into_iter().flatten()
            }
        }

        /// The settings that hold: each has its value.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct Effective {
            $(pub(crate) $name: $type,)*
            $(pub(crate) $more: Option<$more_type>,)*
        }

        impl Effective {
            /// Refuses what cannot work, and makes "for ever" a time that can be added to any
            /// other.
            pub(crate) fn of(said: Settings) -> Result<Self> {
                Ok(Self {
                    $($name: held(said.$name.unwrap_or($const), &SettingRow::$const)?,)*
                    $($more: said.$more.map(|value| held(value, &SettingRow::$more_const)).transpose()?,)*
                })
            }

            /// Gives all that have a value, as they are written.
            pub(super) fn all(&self) -> impl Iterator<Item = (&'static SettingRow, SettingValue)> {
                let all = [
                    $(Some((&SettingRow::$const, self.$name.value())),)*
                    $(self.$more.as_ref().map(|setting| (&SettingRow::$more_const, setting.value())),)*
                ];
                all.into_iter().flatten()
            }
        }
    };
}
each_setting!(define);

fn held<T: Setting>(value: T, row: &SettingRow) -> Result<T> {
    value.held(row).map_err(|why| Error::new(Kind::Invalid, format!("{} {why}", row.key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_what_the_table_writes_and_can_hold() {
        let defaults = Effective::of(Settings::default()).unwrap();
        for (row, value) in defaults.all() {
            let mut written = Settings::default();
            written.set(row.key, SettingValue::Text(row.default.into())).unwrap().unwrap();
            assert_eq!(written.said().map(|(_, read)| read).collect::<Vec<_>>(), [value], "{}", row.key);
        }
    }
}
