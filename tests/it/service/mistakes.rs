//! Settings with mistakes, each with a message that names it and says what to write.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use handover::systemd::environment::Environment;
use handover::{Service, Settings};

use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    in_a_file,
    all_at_once,
    in_the_environment,
    in_a_table_of_ones_own,
    by_a_call,
    what_is_right_is_read,
    what_was_read_can_be_written,
];

const KEYS: &str = "there are ready_timeout, switch_timeout, probation, handover_timeout, standby_timeout, drain_timeout, \
                    hurry_timeout, hurry_under_pressure, linger, stop_linger, migrate, move_within, keep_on_stop, resume_within, healthy_after, exit_on_idle, hook_timeout, max_draining, draining_wait, signals, \
                    pidfile";
const PRESETS: &str = "default, endless, grace, overseer, goframe, nginx, php-fpm";

fn in_a_file() {
    let time = "write a time such as \"30s\"";
    let path = "write a path such as \"/run/web.pid\"";
    let table: &[(&str, String)] = &[
        // Keys.
        ("drain_timout = \"30s\"", "line 1: drain_timout is no setting; is drain_timeout meant?".into()),
        ("# a comment\n\nDrainTimeout = \"30s\"", "line 3: DrainTimeout is no setting; is drain_timeout meant?".into()),
        ("drain-timeout = \"30s\"", "line 1: drain-timeout is no setting; is drain_timeout meant?".into()),
        ("colour = \"blue\"", format!("line 1: colour is no setting; {KEYS}")),
        ("[handover]\nlinger = \"1s\"", format!("line 1: handover is no setting; {KEYS}")),
        ("\"\" = 1", format!("line 1:  is no setting; {KEYS}")),
        // Times.
        ("linger = 5", "line 1: linger = 5 has no unit; for seconds write \"5s\", for milliseconds \"5ms\"".into()),
        ("linger = \"5\"", "line 1: linger = \"5\" has no unit; for seconds write \"5s\", for milliseconds \"5ms\"".into()),
        ("linger = 5.5", format!("line 1: linger = 5.5 is a fraction; {time}")),
        ("linger = \"1.5s\"", "line 1: linger = \"1.5s\" has a fraction; write it in a smaller unit, such as \"1500ms\"".into()),
        ("linger = -5", format!("line 1: linger = -5 is negative; {time}")),
        ("linger = \"-5s\"", format!("line 1: linger = \"-5s\" is negative; {time}")),
        ("linger = \"\"", format!("line 1: linger = \"\" is empty; {time}")),
        ("linger = true", format!("line 1: linger = true is a boolean; {time}")),
        ("linger = [\"5s\"]", format!("line 1: linger = [\"5s\"] is a list; {time}")),
        ("linger = { secs = 5 }", format!("line 1: linger = {{ secs = 5 }} is a table; {time}")),
        ("linger = 2026-01-01", format!("line 1: linger = 2026-01-01 is a date; {time}")),
        ("linger = \"5 parsecs\"", "line 1: linger = \"5 parsecs\" has the unit \"parsecs\", and knows only ms, s, m, h and d".into()),
        ("linger = \"5S\"", "line 1: linger = \"5S\" has the unit \"S\", and knows only ms, s, m, h and d".into()),
        ("linger = \"soon\"", "line 1: linger = \"soon\" is no time; write a number and a unit, such as \"30s\"".into()),
        ("linger = \"infinity\"", "line 1: linger = \"infinity\" has no end, and every wait must have one; write a long time such as \"1d\"".into()),
        ("linger = \"99999999999999999999s\"", "line 1: linger = \"99999999999999999999s\" is longer than any machine runs".into()),
        ("drain_timeout = \"0s\"", format!("line 1: drain_timeout = \"0s\" is 0, which would cut every request; {time}")),
        ("ready_timeout = \"0ms\"", format!("line 1: ready_timeout = \"0ms\" is 0, which would fail every reload; {time}")),
        ("switch_timeout = \"0s\"", "line 1: switch_timeout = \"0s\" is 0, which would fail every reload; write a time such as \"5s\"".into()),
        ("handover_timeout = \"0s\"", "line 1: handover_timeout = \"0s\" is 0, which would not wait for systemd at all; write a time such as \"10s\"".into()),
        ("standby_timeout = \"0s\"", "line 1: standby_timeout = \"0s\" is 0, which would end every next generation; write a time such as \"60s\"".into()),
        ("healthy_after = \"0s\"", "line 1: healthy_after = \"0s\" is 0, which would let a service that fails at once start again without a pause; write a time such as \"30s\"".into()),
        ("hook_timeout = \"0s\"", "line 1: hook_timeout = \"0s\" is 0, which would fail every hook; write a time such as \"10s\"".into()),
        // Limits.
        ("migrate = \"always\"", "line 1: migrate = \"always\" is none; write one of \"never\", \"reload\", \"restart\", \"crash\"".into()),
        ("max_draining = 0", "line 1: max_draining = 0 is 0, and the generation that hands over could not finish its requests; write 1 or more".into()),
        ("max_draining = -1", "line 1: max_draining = -1 is negative; write 1 or more".into()),
        ("max_draining = 1000", "line 1: max_draining = 1000 is more than 128, and each is a whole process".into()),
        ("max_draining = \"many\"", "line 1: max_draining = \"many\" is no whole number; write one such as 8".into()),
        ("max_draining = 2.5", "line 1: max_draining = 2.5 is a fraction; write a whole number such as 8".into()),
        ("max_draining = 99999999999999999999", "line 1: max_draining = 99999999999999999999 is a number out of all bounds; write a whole number such as 8".into()),
        // Policies.
        ("signals = \"apache\"", format!("line 1: signals = \"apache\" is no preset; there are {PRESETS}")),
        ("signals = 1", format!("line 1: signals = 1 is a number; write one of {PRESETS}")),
        ("signals = [\"nginx\"]", format!("line 1: signals = [\"nginx\"] is a list; write one of {PRESETS}")),
        ("pidfile = \"web.pid\"", format!("line 1: pidfile = \"web.pid\" is relative to wherever the service was started; {path}")),
        ("pidfile = \"\"", format!("line 1: pidfile = \"\" is empty; {path}")),
        ("pidfile = \"/run/\"", format!("line 1: pidfile = \"/run/\" is a directory; {path}")),
        ("pidfile = false", format!("line 1: pidfile = false is a boolean; {path}")),
    ];
    assert!(table.len() >= 30);
    for (text, message) in table {
        let error = Settings::from_toml(text).unwrap_err();
        assert!(error.is_invalid());
        assert_eq!(error.to_string(), format!("settings in TOML: {message}"), "{text}");
    }
    // What TOML itself refuses is in its own words, with our line.
    for (text, start) in [
        ("linger = \"5s\"\nlinger = \"6s\"\n", "settings in TOML: line 2: "),
        ("linger = \"5s\"\nlinger\n", "settings in TOML: line 2: "),
        ("linger = \"5s\n", "settings in TOML: line 1: "),
        ("linger = 5s\n", "settings in TOML: line 1: "),
    ] {
        let error = Settings::from_toml(text).unwrap_err().to_string();
        assert!(error.starts_with(start) && error.len() > start.len(), "{error}");
    }
}

fn all_at_once() {
    let text = "linger = 5\n# right:\nprobation = \"1s\"\nhook_timout = \"1s\"\n";
    assert_eq!(
        Settings::from_toml(text).unwrap_err().to_string(),
        "settings in TOML, 2 mistakes: line 1: linger = 5 has no unit; for seconds write \"5s\", for milliseconds \"5ms\"; \
         line 4: hook_timout is no setting; is hook_timeout meant?"
    );
}

fn in_the_environment() {
    let of = |name: &str, value: &str| Settings::from_environment(&Environment::from_pairs([(name, value)]));
    for (name, value, message) in [
        ("HANDOVER_DRAIN_TIMEOUT", "30", "has no unit; for seconds write \"30s\", for milliseconds \"30ms\""),
        ("HANDOVER_DRAIN_TIMEOUT", "0s", "is 0, which would cut every request; write a time such as \"30s\""),
        ("HANDOVER_DRAIN_TIMEOUT", "", "is empty; write a time such as \"30s\""),
        (
            "HANDOVER_MAX_DRAINING",
            "0",
            "is 0, and the generation that hands over could not finish its requests; write 1 or more",
        ),
        ("HANDOVER_MAX_DRAINING", "8s", "is no whole number; write one such as 8"),
        (
            "HANDOVER_PIDFILE",
            "web.pid",
            "is relative to wherever the service was started; write a path such as \"/run/web.pid\"",
        ),
    ] {
        let error = of(name, value).unwrap_err();
        assert!(error.is_invalid());
        assert_eq!(error.to_string(), format!("settings in the environment: {name}={value:?} {message}"));
    }
    let odd = Environment::from_pairs([("HANDOVER_LINGER", OsString::from_vec(vec![0xff]))]);
    let error = Settings::from_environment(&odd).unwrap_err().to_string();
    assert!(error.starts_with("settings in the environment: HANDOVER_LINGER=") && error.ends_with("is not UTF-8"));
    // Of others, or of our own.
    for name in ["HANDOVER_FD", "HANDOVER_PID", "HANDOVER_CACHE", "LINGER", "HANDOVER"] {
        assert_eq!(of(name, "rubbish").unwrap(), Settings::default(), "{name}");
    }
}

fn in_a_table_of_ones_own() {
    #[derive(Debug, serde::Deserialize)]
    struct Config {
        #[expect(dead_code, reason = "only how it fails is looked at")]
        handover: Settings,
    }
    for (text, message) in [
        (r#"{"handover": {"linger": 5}}"#, "linger has no unit; for seconds write \"5s\", for milliseconds \"5ms\""),
        (r#"{"handover": {"lingre": "5s"}}"#, "lingre is no setting; is linger meant?"),
        (r#"{"handover": {"linger": null}}"#, "linger is nothing; write a time such as \"30s\""),
    ] {
        let error = serde_json::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

fn by_a_call() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut unknown = Settings::default();
    unknown.signals = Some("apache".into());
    for (builder, message) in [
        (
            Service::builder().drain_timeout(Duration::ZERO),
            "drain_timeout is 0, which would cut every request; write a time such as \"30s\"".to_owned(),
        ),
        (Service::builder().settings(unknown), format!("signals \"apache\" is no preset; there are {PRESETS}")),
    ] {
        let error = builder.start().unwrap_err();
        assert!(error.is_invalid());
        assert_eq!(error.to_string(), message);
    }
}

const RIGHT: &str = "ready_timeout = \"1m\"\nswitch_timeout = \"6s\"\nprobation = \"0s\"\nhandover_timeout = \"11s\"\n\
                     standby_timeout = \"61s\"\ndrain_timeout = \"1h\"\nhurry_timeout = \"0s\"\nlinger = \"6s\"\n\
                     stop_linger = \"2s\"\nhook_timeout = \"500ms\"\nmax_draining = 0x10\nsignals = \"php-fpm\"\n\
                     pidfile = \"/run/web.pid\"\n";

fn what_is_right_is_read() {
    let settings = Settings::from_toml(RIGHT).unwrap();
    assert_eq!(settings.drain_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(settings.hurry_timeout, Some(Duration::ZERO), "some may be 0");
    assert_eq!(settings.max_draining, Some(16));
    assert_eq!(settings.pidfile.as_deref(), Some("/run/web.pid".as_ref()));
    assert_eq!(Settings::from_toml("").unwrap(), Settings::default());
    let mut above = Settings::default();
    above.linger = Some(Duration::from_secs(1));
    let both = above.over(settings.clone());
    assert_eq!((both.linger, both.drain_timeout), (Some(Duration::from_secs(1)), settings.drain_timeout));
}

fn what_was_read_can_be_written() {
    let settings = Settings::from_toml(RIGHT).unwrap();
    let text = serde_json::to_string(&settings).unwrap();
    assert!(text.contains(r#""hook_timeout":"500ms""#) && text.contains(r#""max_draining":16"#), "{text}");
    assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
}
