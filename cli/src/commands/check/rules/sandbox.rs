//! HO3xx: the sandbox, as far as it is in the way of the next generation.

use crate::commands::check::rule::{
    Finding, Pair, Remedy, Row, SERVICE, Service, ServiceAll, Set, Setting, Unit, When,
};
use crate::commands::check::value::{is_off, is_on, words};

pub(super) const RULES: &[Row] = &[
    ("HO301", Service(address_families)),
    ("HO302", ServiceAll(run_hidden)),
    ("HO303", When(SERVICE, "PrivatePIDs", is_on, Set("no"))),
    ("HO304", When(SERVICE, "RestrictNamespaces", |kinds| !is_off(kinds), Remedy)),
    ("HO305", Service(syscalls)),
    ("HO306", ServiceAll(no_exec)),
    ("HO307", ServiceAll(bound_files)),
    ("HO308", Service(private_users)),
    ("HO309", When(SERVICE, "DynamicUser", is_on, Remedy)),
    ("HO310", Service(runtime_directory)),
    ("HO311", Service(delegate)),
    ("HO312", ServiceAll(fine)),
    ("HO313", ServiceAll(roots)),
];

/// One setting of the kind `A B`, `~C`: what the first line says is the mode, further lines add or
/// take away.
///
/// Whether something may be used: `covers` tells whether a word stands for it, `implied` whether
/// each list of what is allowed has it.
fn permits(lines: &[Setting<'_>], implied: bool, covers: impl Fn(&str) -> bool) -> bool {
    let mut allow_list = None;
    let mut listed = false;
    for setting in lines {
        let text = setting.expanded();
        let (denies, rest) = text.strip_prefix('~').map_or((false, text.as_str()), |rest| (true, rest));
        if allow_list.is_none() {
            listed = implied && !denies;
        }
        let allows = *allow_list.get_or_insert(!denies);
        if words(rest).iter().any(|word| covers(word.split(':').next().unwrap_or_default())) {
            listed = denies != allows;
        }
    }
    allow_list.is_none_or(|allows| listed == allows)
}

fn address_families(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let lines = service.list(SERVICE, "RestrictAddressFamilies");
    let last = lines.last().filter(|_| !permits(&lines, false, |word| matches!(word, "AF_UNIX" | "AF_LOCAL")))?;
    // Adds to a list of what is allowed, and takes from a list of what is denied.
    Some(Finding::of(last).instead("AF_UNIX"))
}

/// The paths of these settings: each with where it is bound to, if it is, and its line; `-` and `+`
/// before and options after are taken off.
fn paths<'a>(service: &'a Unit, keys: &[&'a str]) -> Vec<(String, Option<String>, Setting<'a>)> {
    let bare = |path: &str| if path == "/" { path.to_owned() } else { path.trim_end_matches('/').to_owned() };
    let parts = |word: &String| {
        let mut parts = word.trim_start_matches(['-', '+']).split(':');
        (bare(parts.next().unwrap_or_default()), parts.next().filter(|to| !to.is_empty()).map(bare))
    };
    let lines = keys.iter().flat_map(|key| service.list(SERVICE, key));
    let words = lines.flat_map(|line| line.words().into_iter().map(move |word| (word, line)));
    words.map(|(word, line)| (parts(&word), line)).map(|((path, to), line)| (path, to, line)).collect()
}

fn is_below(path: &str, directory: &str) -> bool {
    directory == "/" || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

const BINDS: [&str; 2] = ["BindPaths", "BindReadOnlyPaths"];
const NOTIFY: &str = "/run/systemd/notify";

fn run_hidden(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let bound = paths(service, &BINDS).iter().any(|(path, to, _)| is_below(NOTIFY, to.as_ref().unwrap_or(path)));
    let hides =
        |path: &str| is_below(NOTIFY, path.strip_prefix("/var").filter(|p| p.starts_with("/run")).unwrap_or(path));
    let hidden = paths(service, &["TemporaryFileSystem", "InaccessiblePaths", "InaccessibleDirectories"]).into_iter();
    let found = hidden.filter(|(path, ..)| hides(path)).filter_map(|(.., setting)| match setting.key() {
        "TemporaryFileSystem" if bound => None,
        "TemporaryFileSystem" => Some(Finding::of(&setting).set(SERVICE, "BindReadOnlyPaths", NOTIFY)),
        _ => Some(Finding::of(&setting).advice("Leave /run visible; hide single directories in it instead.")),
    });
    found.collect()
}

/// What a reload calls, with the group of systemd that contains it.
const NEEDED: [(&str, &str); 5] = [
    ("clone", "@process"),
    // A list of what is allowed always begins with @default.
    ("execve", "@default"),
    ("sendmsg", "@network-io"),
    ("recvmsg", "@network-io"),
    ("memfd_create", "@ipc"),
];

fn syscalls(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let lines = service.list(SERVICE, "SystemCallFilter");
    let denied = NEEDED.iter().filter(|(call, group)| {
        let all = [call, group, "@system-service", "@known"];
        !permits(&lines, *group == "@default", |word| all.contains(&word))
    });
    let denied: Vec<_> = denied.map(|(call, _)| *call).collect();
    let last = lines.last().filter(|_| !denied.is_empty())?;
    let finding = Finding::at(last, format!("SystemCallFilter= denies {}", denied.join(", ")));
    Some(finding.instead(&denied.join(" ")))
}

fn no_exec(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let (denied, allowed) = (paths(service, &["NoExecPaths"]), paths(service, &["ExecPaths"]));
    let programs = service.commands("ExecStart").into_iter().map(|(exec, _)| exec.path).filter(|p| p.starts_with('/'));
    let found = programs.filter_map(|program| {
        let over = denied.iter().filter(|(path, ..)| is_below(&program, path)).max_by_key(|(path, ..)| path.len());
        let (path, _, setting) = over?;
        let excepted = allowed.iter().any(|(other, ..)| is_below(&program, other) && other.len() >= path.len());
        let finding = || Finding::at(setting, format!("NoExecPaths={path} covers {program}"));
        (!excepted).then(|| finding().set(SERVICE, "ExecPaths", &program))
    });
    found.collect()
}

/// Of files that a service reads.
const ENDINGS: &str = "toml conf cfg cnf ini json yaml yml xml env pem crt cer key txt lua py sh so jar";

fn bound_files(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let programs: Vec<_> = service.commands("ExecStart").into_iter().map(|(exec, _)| exec.path).collect();
    let is_file = |from: &String, to: &String| {
        // By the name alone: example.com, python3.11 and conf.d are directories.
        let ending = from.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending);
        programs.iter().any(|p| p == to || p == from) || ENDINGS.split(' ').any(|e| ending == Some(e))
    };
    let kept = |path: &str| ["/run", "/dev", "/proc", "/sys"].iter().any(|d| is_below(path, d));
    let bound = paths(service, &BINDS).into_iter();
    let bound = bound.filter(|(from, to, _)| !kept(from) && is_file(from, to.as_ref().unwrap_or(from)));
    let findings = bound.map(|(from, _, setting)| {
        let directory = from.rsplit_once('/').map_or("/", |(directory, _)| directory);
        Finding::at(&setting, format!("{}= binds the file {from}", setting.key()))
            .advice(format!("Bind the directory {directory} instead."))
    });
    findings.collect()
}

fn runtime_directory(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "RuntimeDirectory")?;
    let preserved = service.text(SERVICE, "RuntimeDirectoryPreserve");
    let kept = preserved.is_some_and(|s| s.value() == "restart" || is_on(s.value()));
    (!kept).then(|| Finding::of(&setting).set(SERVICE, "RuntimeDirectoryPreserve", "restart"))
}

fn delegate(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let finding = Finding::of(&service.not_off("Delegate")?);
    // With Delegate= goes its default of OOMPolicy=, which HO151 would then ask for.
    Some(match service.says(SERVICE, "OOMPolicy") {
        true => finding.instead("no"),
        false => finding.lines(SERVICE, ["Delegate=no", "OOMPolicy=continue"]),
    })
}

fn fine(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let keys = ["MemoryDenyWriteExecute", "ProtectSystem", "PrivateNetwork"].into_iter();
    keys.filter_map(|key| service.not_off(key)).map(|setting| Finding::of(&setting).but(" is fine")).collect()
}

fn roots(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let keys = ["RootDirectory", "RootImage", "ExtensionImages", "ExtensionDirectories"].into_iter();
    let set = keys.filter_map(|key| service.list(SERVICE, key).pop()).filter(|setting| setting.value() != "/");
    set.map(|setting| Finding::of(&setting).but(", which a reload keeps as it is")).collect()
}

fn private_users(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let users = service.not_off("PrivateUsers").or_else(|| service.text(SERVICE, "UserNamespacePath"))?;
    Some(Finding::of(&users))
}
