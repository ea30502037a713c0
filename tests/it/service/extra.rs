//! What these tests add to the service of `tests/it/reload`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover::service::hooks::{Event, Hook, InPlace, Launch, When};
use handover::service::signals::{Response, Signal, SignalMap};
use handover::{BoxError, Builder, Service, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use handover_testing::service::Config;

/// Read by each generation when it starts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Extra {
    pub(crate) hooks: Vec<(At, Act)>,
    /// Of all hooks.
    pub(crate) timeout: Option<Duration>,
    pub(crate) in_place: Option<Act>,
    pub(crate) before_spawn: Option<Act>,
    pub(crate) preset: Option<String>,
    pub(crate) pidfile: Option<PathBuf>,
    /// As TOML.
    pub(crate) settings: Option<String>,
    pub(crate) settings_from_env: bool,
    pub(crate) admin: Option<crate::admin::Admin>,
    /// The path of the control interface.
    pub(crate) control: Option<PathBuf>,
    /// Adopts orphans, and starts these.
    pub(crate) family: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum At {
    BeforeReload,
    Ready,
    Switch,
    RolledBack,
    HandedOver,
    Main,
    DrainStarted,
    Hammered,
    BeforeExit,
    BeforeSignal,
    AfterSignal,
}

impl At {
    pub(crate) const ALL: [Self; 11] = [
        Self::BeforeReload,
        Self::Ready,
        Self::Switch,
        Self::RolledBack,
        Self::HandedOver,
        Self::Main,
        Self::DrainStarted,
        Self::Hammered,
        Self::BeforeExit,
        Self::BeforeSignal,
        Self::AfterSignal,
    ];

    fn when(self) -> When {
        match self {
            Self::BeforeReload => When::BeforeReload,
            Self::Ready => When::Ready,
            Self::Switch => When::Switch,
            Self::RolledBack => When::RolledBack,
            Self::HandedOver => When::HandedOver,
            Self::Main => When::Main,
            Self::DrainStarted => When::DrainStarted,
            Self::Hammered => When::Hammered,
            Self::BeforeExit => When::BeforeExit,
            Self::BeforeSignal => When::BeforeSignal,
            Self::AfterSignal => When::AfterSignal,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Act {
    /// A line in the file "hooks"; fails with what the file "bad" says, if there is one.
    Note,
    NoteBlocking,
    Panic,
    PanicBlocking,
    /// For ever.
    Hang,
    HangBlocking,
    /// Until there is a file "go"; says so in a file "asked".
    Wait,
}

/// For [`Config::extra`].
pub(crate) fn configured(config: &mut Config, change: impl FnOnce(&mut Extra)) {
    let mut extra: Extra = read(&config.extra);
    change(&mut extra);
    config.extra = serde_json::to_value(extra).unwrap();
}

fn read(extra: &Value) -> Extra {
    if extra.is_null() { Extra::default() } else { serde_json::from_value(extra.clone()).unwrap() }
}

pub(crate) fn extend(mut builder: Builder, directory: &Path, extra: &Value) -> Builder {
    let extra = read(extra);
    for (at, act) in extra.hooks {
        builder = builder.on(at.when(), hook(act, directory, |event: Event| (shown(&event), ())));
    }
    if let Some(act) = extra.in_place {
        let directory_of = directory.to_owned();
        builder = builder.on_reload_in_place(hook(act, directory, move |event: Event| {
            let new = directory_of.join("upgrade").exists();
            (format!("in place {}", event.generation), if new { InPlace::NewGeneration } else { InPlace::Done })
        }));
    }
    if let Some(act) = extra.before_spawn {
        builder = builder.before_spawn(hook(act, directory, |launch: Launch| {
            let argv = [launch.argv()[0].clone(), "changed".into()];
            ("before spawn".into(), launch.with_argv(argv).with_env("COLOUR", "blue").without_env("RUST_BACKTRACE"))
        }));
    }
    if let Some(timeout) = extra.timeout {
        builder = builder.hook_timeout(timeout);
    }
    if let Some(name) = extra.preset {
        builder = match name.as_str() {
            "own" => builder.signals(SignalMap::default().on(Signal::Usr1, Response::Reload).without(Signal::Quit)),
            name => builder.signals(SignalMap::preset(name).unwrap()),
        };
    }
    if let Some(path) = extra.pidfile {
        builder = builder.pidfile(path);
    }
    if let Some(text) = extra.settings {
        builder = builder.settings(Settings::from_toml(&text).unwrap());
    }
    if extra.settings_from_env {
        builder = builder.settings(Settings::from_env().unwrap());
    }
    if let Some(admin) = &extra.admin {
        builder = admin.listen(builder);
    }
    if let Some(path) = &extra.control {
        builder = builder.control_at(path);
    }
    if extra.family {
        builder = crate::reap::with_family(builder, directory);
    }
    builder
}

pub(crate) fn extend_started(service: &Service, extra: &Value) -> handover::Result<()> {
    match read(extra).admin {
        Some(admin) => admin.serve(service),
        None => Ok(()),
    }
}

fn shown(event: &Event) -> String {
    let mut text = format!("{:?}", event.when);
    match event.when {
        When::Switch => text += &format!(" accepts={}", event.accepts),
        When::RolledBack => text += &format!(" {}", event.reason.as_deref().unwrap()),
        When::DrainStarted => text += &format!(" {}", event.connections),
        When::Hammered => text += &format!(" {}", event.cut.len()),
        When::BeforeSignal | When::AfterSignal => text += &format!(" {}", event.signal.unwrap()),
        _ => {}
    }
    text
}

fn hook<E: Send + 'static, T: Send + 'static>(
    act: Act,
    directory: &Path,
    about: impl Fn(E) -> (String, T) + Send + Sync + 'static,
) -> Hook<E, T> {
    let directory = directory.to_owned();
    let note = move |event: E| {
        let (text, result) = about(event);
        let mut file = File::options().create(true).append(true).open(directory.join("hooks")).unwrap();
        file.write_all(format!("{} {text}\n", std::process::id()).as_bytes()).unwrap();
        match fs::read_to_string(directory.join("bad")) {
            Ok(why) => Err(BoxError::from(why)),
            Err(_) => Ok((result, directory.clone())),
        }
    };
    match act {
        Act::Note => Hook::new(move |event| {
            let noted = note(event);
            async { noted.map(|(result, _)| result) }
        }),
        Act::NoteBlocking => Hook::blocking(move |event| note(event).map(|(result, _)| result)),
        Act::Panic => Hook::new(|_| async { panic!("the hook is broken") }),
        Act::PanicBlocking => Hook::blocking(|_| panic!("the hook is broken")),
        Act::Hang => Hook::new(|_| std::future::pending()),
        Act::HangBlocking => Hook::blocking(|_| {
            loop {
                std::thread::park();
            }
        }),
        Act::Wait => Hook::new(move |event| {
            let noted = note(event);
            async move {
                let (result, directory) = noted?;
                fs::write(directory.join("asked"), "").unwrap();
                while !directory.join("go").exists() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok(result)
            }
        }),
    }
}
