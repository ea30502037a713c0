//! HO3xx: the sandbox, as far as it is in the way of the next generation.

use super::resources::delegates;
use super::{Check, Link, Rule, Scope};
use crate::commands::check::command::commands;
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::Pair;
use crate::commands::check::unit::{SERVICE, Setting, Unit};
use crate::commands::check::value;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO301",
        name: "address-families",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "RestrictAddressFamilies= without AF_UNIX",
        why: "The service speaks to systemd, and the generations to each other, over Unix sockets.",
        remedy: "Add AF_UNIX.",
        link: Link::Man("systemd.exec#RestrictAddressFamilies"),
        check: Check::Service(address_families),
    },
    Rule {
        id: "HO302",
        name: "run-hidden",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "TemporaryFileSystem= or InaccessiblePaths= hides /run",
        why: "systemd's notify socket is below /run: without it nobody learns that the service is ready, or who is main.",
        remedy: "Leave /run visible, or bind /run/systemd/notify into it.",
        link: Link::Man("systemd.exec#TemporaryFileSystem"),
        check: Check::ServiceAll(run_hidden),
    },
    Rule {
        id: "HO303",
        name: "private-pids",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "PrivatePIDs=yes",
        why: "The main process is then PID 1 of its namespace, and when that one ends the kernel kills every other process in it, the next generation too.",
        remedy: "Remove PrivatePIDs=; ProtectProc=invisible hides other processes as well.",
        link: Link::Man("systemd.exec#PrivatePIDs"),
        check: Check::Service(|service, _| {
            Some(Finding::of(&service.on(SERVICE, "PrivatePIDs")?).set(SERVICE, "PrivatePIDs", "no"))
        }),
    },
    Rule {
        id: "HO304",
        name: "restrict-namespaces",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "RestrictNamespaces= turns clone3 off",
        why: "systemd cannot look into clone3's arguments and lets it fail with ENOSYS; handover itself uses clone, but a program that starts processes by clone3 needs a fallback.",
        remedy: "Keep it if a reload was tried with it, and say Ignore=HO304 under [X-Handover].",
        link: Link::Man("systemd.exec#RestrictNamespaces"),
        check: Check::Service(restrict_namespaces),
    },
    Rule {
        id: "HO305",
        name: "syscall-filter",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "SystemCallFilter= denies what a reload needs",
        why: "The next generation is started by clone and execve, gets its sockets by sendmsg, and its state in a memfd.",
        remedy: "SystemCallFilter=@system-service has all of them; or add @process sendmsg recvmsg memfd_create execve.",
        link: Link::Man("systemd.exec#SystemCallFilter"),
        check: Check::Service(syscalls),
    },
    Rule {
        id: "HO306",
        name: "no-exec",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "NoExecPaths= covers the program",
        why: "The first start is made by systemd, each next generation by the service itself from within its sandbox.",
        remedy: "ExecPaths= with the program, its interpreter and libraries.",
        link: Link::Man("systemd.exec#ExecPaths"),
        check: Check::ServiceAll(no_exec),
    },
    Rule {
        id: "HO307",
        name: "bound-file",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "BindPaths= of a single file",
        why: "The mount holds on to the file that was there at the start, and a new one that is renamed into its place is not seen until a restart.",
        remedy: "Bind the directory that it is in.",
        link: Link::Man("systemd.exec#BindPaths"),
        check: Check::ServiceAll(bound_files),
    },
    Rule {
        id: "HO308",
        name: "private-users",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "PrivateUsers= is on",
        why: "Within it the users of other processes look like nobody, so a check of who asks for a reload over a socket fails, and files of others cannot be replaced.",
        remedy: "Remove it if the service checks its peers' users; else say Ignore=HO308 under [X-Handover].",
        link: Link::Man("systemd.exec#PrivateUsers"),
        check: Check::Service(private_users),
    },
    Rule {
        id: "HO309",
        name: "dynamic-user",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "DynamicUser=yes",
        why: "The user is another one after a stop, and IPC objects and files outside of StateDirectory= and its like are gone or not the service's any more.",
        remedy: "A User= of its own; or keep state in StateDirectory= only, and say Ignore=HO309 under [X-Handover].",
        link: Link::Man("systemd.exec#DynamicUser"),
        check: Check::Service(|service, _| {
            let advice = "A User= of its own; or keep state in StateDirectory= only.";
            Some(Finding::of(&service.on(SERVICE, "DynamicUser")?).advice(advice))
        }),
    },
    Rule {
        id: "HO310",
        name: "runtime-directory",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "RuntimeDirectory= without RuntimeDirectoryPreserve=restart",
        why: "The directory is removed after a crash, and sockets and state in it with it, before the service is started again.",
        remedy: "RuntimeDirectoryPreserve=restart.",
        link: Link::Man("systemd.exec#RuntimeDirectoryPreserve"),
        check: Check::Service(runtime_directory),
    },
    Rule {
        id: "HO311",
        name: "delegate",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "Delegate= is on",
        why: "A next generation that the service puts into a cgroup of its own is refused as main process by some versions, and is missed when limits and kills apply.",
        remedy: "Remove it, or leave all generations in the unit's own cgroup and say Ignore=HO311 under [X-Handover].",
        link: Link::Man("systemd.resource-control#Delegate"),
        check: Check::Service(delegate),
    },
    Rule {
        id: "HO312",
        name: "sandbox-fine",
        severity: Severity::Info,
        scope: Scope::Rolling,
        title: "MemoryDenyWriteExecute=, ProtectSystem= and PrivateNetwork= are fine",
        why: "None of these is in the way of a reload: sockets that systemd passes work in any network namespace, and the next generation is a fresh program.",
        remedy: "Nothing to do.",
        link: Link::Man("systemd.exec#ProtectSystem"),
        check: Check::ServiceAll(fine),
    },
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
        if value::words(rest).iter().any(|word| covers(word.split(':').next().unwrap_or_default())) {
            listed = denies != allows;
        }
    }
    allow_list.is_none_or(|allows| listed == allows)
}

fn address_families(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let lines = service.list(SERVICE, "RestrictAddressFamilies");
    let last = lines.last().copied()?;
    // Adds to a list of what is allowed, and takes from a list of what is denied.
    let add = |f: Finding| f.set(SERVICE, "RestrictAddressFamilies", "AF_UNIX");
    (!permits(&lines, false, |word| matches!(word, "AF_UNIX" | "AF_LOCAL"))).then(|| add(Finding::of(&last)))
}

/// The paths of a line, with `-` and `+` before and options after taken off.
fn paths(setting: &Setting<'_>) -> Vec<String> {
    let bare = |word: String| {
        let path = word.trim_start_matches(['-', '+']);
        let path = path.split(':').next().unwrap_or_default();
        if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path.to_owned() }
    };
    setting.words().into_iter().map(bare).collect()
}

/// What a line binds: from where and to where.
fn binds(service: &Unit) -> Vec<(String, String, Setting<'_>)> {
    let lines = ["BindPaths", "BindReadOnlyPaths"].into_iter().flat_map(|key| service.list(SERVICE, key));
    let pair = |word: String| {
        let word = word.trim_start_matches('-');
        let mut parts = word.split(':').map(|p| p.trim_end_matches('/').to_owned());
        let from = parts.next().unwrap_or_default();
        (from.clone(), parts.next().filter(|to| !to.is_empty()).unwrap_or(from))
    };
    lines.flat_map(|s| s.words().into_iter().map(pair).map(|(from, to)| (from, to, s)).collect::<Vec<_>>()).collect()
}

fn run_hidden(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    const NOTIFY: &str = "/run/systemd/notify";
    let bound = binds(service).iter().any(|(_, to, _)| is_below(NOTIFY, to));
    let keys = ["TemporaryFileSystem", "InaccessiblePaths", "InaccessibleDirectories"];
    let hides =
        |path: &str| is_below(NOTIFY, path.strip_prefix("/var").filter(|p| p.starts_with("/run")).unwrap_or(path));
    let lines = keys.into_iter().flat_map(|key| service.list(SERVICE, key));
    let hiding = lines.filter(|s| paths(s).iter().any(|path| hides(path)));
    hiding
        .filter(|s| !(bound && s.key() == "TemporaryFileSystem"))
        .map(|s| match s.key() {
            "TemporaryFileSystem" => Finding::of(&s).set(SERVICE, "BindReadOnlyPaths", NOTIFY),
            _ => Finding::of(&s).advice("Leave /run visible; hide single directories in it instead."),
        })
        .collect()
}

fn is_below(path: &str, directory: &str) -> bool {
    directory == "/" || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn restrict_namespaces(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.list(SERVICE, "RestrictNamespaces").last().copied()?;
    let on = value::boolean(setting.value()) != Some(false);
    on.then(|| Finding::of(&setting).advice("Try a reload with it; then say Ignore=HO304 under [X-Handover]."))
}

/// What a reload calls, with the groups of systemd that contain it.
const NEEDED: &[(&str, &[&str])] = &[
    ("clone", &["@process", "@system-service", "@known"]),
    ("execve", &["@default", "@system-service", "@known"]),
    ("sendmsg", &["@network-io", "@system-service", "@known"]),
    ("recvmsg", &["@network-io", "@system-service", "@known"]),
    ("memfd_create", &["@ipc", "@system-service", "@known"]),
];

fn syscalls(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let lines = service.list(SERVICE, "SystemCallFilter");
    let last = lines.last().copied()?;
    let denied = NEEDED.iter().filter(|(call, groups)| {
        // A list of what is allowed always begins with @default.
        !permits(&lines, *call == "execve", |word| word == *call || groups.contains(&word))
    });
    let denied: Vec<_> = denied.map(|(call, _)| *call).collect();
    if denied.is_empty() {
        return None;
    }
    let finding = Finding::at(&last, format!("SystemCallFilter= denies {}", denied.join(", ")));
    Some(finding.set(SERVICE, "SystemCallFilter", &denied.join(" ")))
}

fn no_exec(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let all = |key: &'static str| {
        service.list(SERVICE, key).into_iter().flat_map(|s| paths(&s).into_iter().map(move |p| (p, s)))
    };
    let (denied, allowed): (Vec<_>, Vec<_>) = (all("NoExecPaths").collect(), all("ExecPaths").collect());
    let programs = commands(service, "ExecStart").into_iter().map(|(exec, _)| exec.path).filter(|p| p.starts_with('/'));
    let mut findings = Vec::new();
    for program in programs {
        let longest = |list: &[(String, Setting<'_>)]| {
            list.iter().filter(|(path, _)| is_below(&program, path)).map(|(path, _)| path.len()).max()
        };
        let over = denied.iter().filter(|(path, _)| is_below(&program, path)).max_by_key(|(path, _)| path.len());
        if let Some((path, setting)) = over.filter(|_| longest(&denied) > longest(&allowed)) {
            let finding = Finding::at(setting, format!("NoExecPaths={path} covers {program}"));
            findings.push(finding.set(SERVICE, "ExecPaths", &program));
        }
    }
    findings
}

/// Of files that a service reads.
const ENDINGS: [&str; 20] = [
    "toml", "conf", "cfg", "cnf", "ini", "json", "yaml", "yml", "xml", "env", "pem", "crt", "cer", "key", "txt", "lua",
    "py", "sh", "so", "jar",
];

fn bound_files(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let programs: Vec<_> = commands(service, "ExecStart").into_iter().map(|(exec, _)| exec.path).collect();
    let is_file = |from: &str, to: &str| {
        // By the name alone: example.com, python3.11 and conf.d are directories.
        let ending = from.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending);
        programs.iter().any(|p| p == to || p == from) || ending.is_some_and(|e| ENDINGS.contains(&e))
    };
    let kept = |path: &str| ["/run", "/dev", "/proc", "/sys"].iter().any(|d| is_below(path, d));
    let bound = binds(service).into_iter().filter(|(from, to, _)| !kept(from) && is_file(from, to));
    bound
        .map(|(from, _, setting)| {
            let directory = from.rsplit_once('/').map_or("/", |(directory, _)| directory);
            Finding::at(&setting, format!("{}= binds the file {from}", setting.key()))
                .advice(format!("Bind the directory {directory} instead."))
        })
        .collect()
}

fn private_users(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "PrivateUsers").filter(|s| value::boolean(s.value()) != Some(false))?;
    Some(Finding::of(&setting).advice("Remove it if the service checks who its peers are."))
}

fn runtime_directory(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.list(SERVICE, "RuntimeDirectory").last().copied()?;
    let preserved = service.text(SERVICE, "RuntimeDirectoryPreserve");
    let kept = preserved.is_some_and(|s| s.value() == "restart" || value::boolean(s.value()) == Some(true));
    (!kept).then(|| Finding::of(&setting).set(SERVICE, "RuntimeDirectoryPreserve", "restart"))
}

fn delegate(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "Delegate").filter(|_| delegates(service))?;
    let finding = Finding::of(&setting);
    // With Delegate= goes the default of OOMPolicy= that a rolling reload needs: HO151 would ask
    // for it then.
    Some(match service.says(SERVICE, "OOMPolicy") {
        true => finding.set(SERVICE, "Delegate", "no"),
        false => finding.lines(SERVICE, vec!["Delegate=no".to_owned(), "OOMPolicy=continue".to_owned()]),
    })
}

fn fine(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let keys = ["MemoryDenyWriteExecute", "ProtectSystem", "PrivateNetwork"].into_iter();
    let on = keys.filter_map(|key| service.text(SERVICE, key)).filter(|s| value::boolean(s.value()) != Some(false));
    on.map(|s| Finding::at(&s, format!("{}={} is fine", s.key(), s.value())).advice("Nothing to do.")).collect()
}
