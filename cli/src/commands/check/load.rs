//! Reading units: files, directories, what the manager knows, stdin.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cat;
use super::name::UnitName;
use super::pair::World;
use super::program;
use super::running;
use super::unit::{File, Unit};
use crate::systemctl;

/// More than this is no unit.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;
/// More than any machine has; what is found in each of them is kept until it is printed.
const MOST_UNITS: usize = 10_000;
/// Of directories in directories.
const DEEPEST: usize = 16;

/// Where to look, besides what is named.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Directories with `UNIT.d/*.conf` in them, on top of the one that a unit is in.
    pub(super) drop_ins: Vec<PathBuf>,
    /// The user's manager instead of the system's.
    pub(super) user: bool,
}

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The units that were named, and then those of each directory below a directory: units of two
    /// directories have nothing to do with each other, and may have the same name.
    pub(super) worlds: Vec<World>,
    /// What the worlds are made of, and the names in each.
    groups: Vec<Vec<Unit>>,
    names: BTreeSet<(usize, UnitName)>,
    pub(super) problems: Vec<String>,
    /// Units that were named, or found where was looked; not those that belong to them.
    pub(super) asked: BTreeSet<String>,
    /// What services that run have told that they reload on.
    reload_signals: BTreeMap<UnitName, BTreeSet<String>>,
    /// Something was asked from the manager of this machine.
    pub(super) from_manager: bool,
}

impl Sources {
    pub(super) async fn load(&self, arguments: &[String]) -> Loaded {
        let mut loaded = Loaded { groups: vec![Vec::new()], ..Loaded::default() };
        for argument in arguments {
            if let Err(problem) = self.argument(argument, &mut loaded).await {
                loaded.problems.push(problem);
            }
        }
        let groups = std::mem::take(&mut loaded.groups).into_iter().filter(|units| !units.is_empty());
        loaded.worlds = groups.map(|units| World::new(program::with_handover(&units), units)).collect();
        // Units of the manager are among those that were named.
        if let Some(named) = loaded.worlds.first_mut() {
            named.running(std::mem::take(&mut loaded.reload_signals));
        }
        if loaded.worlds.is_empty() && loaded.problems.is_empty() {
            loaded.problems.push(format!("there is no .service and no .socket in {}", arguments.join(" ")));
        }
        loaded
    }

    async fn argument(&self, argument: &str, loaded: &mut Loaded) -> Result<(), String> {
        let path = Path::new(argument);
        if argument == "-" {
            let mut text = Vec::new();
            let read = std::io::stdin().lock().take(LARGEST_FILE + 1).read_to_end(&mut text);
            if read.map_err(|e| format!("stdin cannot be read: {e}"))? as u64 > LARGEST_FILE {
                return Err(format!("stdin is larger than {LARGEST_FILE} bytes, so it is no unit"));
            }
            let units = cat::split(&text).map_err(|e| format!("stdin: {e}"))?;
            loaded.asked.extend(units.iter().map(|u| u.name.to_string()));
            return loaded.add(0, units);
        }
        if path.is_dir() {
            return self.directory(path, 0, loaded);
        }
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty());
        let name = unit_name(path);
        let beside = name.as_ref().and_then(|name| find(directory.unwrap_or(Path::new("")), name));
        match (name, beside) {
            (Some(name), Some(file)) => self.file(name, &file, loaded),
            (None, _) if path.exists() => Err(format!(
                "{argument}: a unit's file is called NAME.service or NAME.socket; pipe others into `handover check -`"
            )),
            _ if argument.contains('/') => Err(format!("{argument}: there is no such file")),
            _ => self.ask_manager(argument, loaded).await,
        }
    }

    /// A unit, and what beside it belongs to it.
    fn file(&self, name: UnitName, path: &Path, loaded: &mut Loaded) -> Result<(), String> {
        let directory = Directory::read(path.parent().unwrap_or(Path::new("")))?;
        let unit = match directory.alias_of(&name, path) {
            Some(Alias::Here(other)) => {
                self.read(other.clone(), &directory.path.join(other.to_string()), &directory)?
            }
            _ => self.read(name, path, &directory)?,
        };
        loaded.asked.insert(unit.name.to_string());
        let others: Vec<_> = if unit.name.is_socket() {
            unit.starts().into_iter().collect()
        } else {
            unit.sockets().chain([unit.name.with_type("socket")]).collect()
        };
        let mut units = vec![unit];
        for other in others {
            if let Some(path) = find(&directory.path, &other) {
                units.push(self.read(other, &path, &directory)?);
            }
        }
        // Sockets of another name say themselves whose they are.
        if units[0].name.is_service() {
            for (name, path) in directory.units.iter().filter(|(name, _)| name.is_socket()) {
                let Ok(socket) = self.read(name.clone(), path, &directory) else { continue };
                if socket.starts().as_ref() == Some(&units[0].name) {
                    units.push(socket);
                }
            }
        }
        loaded.add(0, units)
    }

    /// All units of a directory, and of those below it: a package keeps its units in more than one.
    fn directory(&self, path: &Path, depth: usize, loaded: &mut Loaded) -> Result<(), String> {
        let directory = Directory::read(path)?;
        let group = if depth == 0 { 0 } else { loaded.groups.len() };
        for (name, path) in &directory.units {
            match self.read(name.clone(), path, &directory) {
                Ok(unit) => {
                    loaded.asked.insert(unit.name.to_string());
                    loaded.add(group, vec![unit])?;
                }
                // Among the files of a package they are no mistake.
                Err(problem) if problem.ends_with(NO_UNIT) => {}
                Err(problem) => loaded.problems.push(problem),
            }
        }
        for below in directory.below.iter().filter(|_| depth < DEEPEST) {
            if let Err(problem) = self.directory(below, depth + 1, loaded) {
                loaded.problems.push(problem);
            }
        }
        Ok(())
    }

    fn read(&self, name: UnitName, path: &Path, directory: &Directory) -> Result<Unit, String> {
        let bytes = read(path)?;
        if let Some(what) = foreign(&bytes) {
            return Err(format!("{}: a file of {what}, {NO_UNIT}", path.display()));
        }
        let mut files = vec![File::new(path.display().to_string(), &bytes)];
        // Of one file name the most special directory wins; the file names decide the order.
        let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
        let beside = path.parent().map(Path::to_owned);
        let places: Vec<_> = beside.into_iter().chain(self.drop_ins.iter().cloned()).collect();
        let names = directory.aliases.get(&name).into_iter().flatten().chain([&name]);
        for special in names.flat_map(UnitName::drop_in_directories) {
            for place in &places {
                let Ok(entries) = fs::read_dir(place.join(&special)) else { continue };
                let paths = entries.flatten().map(|e| e.path()).filter(|p| p.extension() == Some(OsStr::new("conf")));
                drop_ins.extend(paths.filter_map(|p| Some((p.file_name()?.to_owned(), p.clone()))));
            }
        }
        for path in drop_ins.into_values() {
            files.push(File::new(path.display().to_string(), &read(&path)?));
        }
        Ok(Unit { name, files })
    }

    async fn ask_manager(&self, argument: &str, loaded: &mut Loaded) -> Result<(), String> {
        let name = UnitName::parse(argument).or_else(|| UnitName::parse(&format!("{argument}.service")));
        let name = name.ok_or_else(|| format!("{argument}: neither a file nor the name of a unit"))?;
        if !name.is_service() && !name.is_socket() {
            return Err(format!("{argument}: only services and sockets are looked into"));
        }
        loaded.from_manager = true;
        loaded.asked.insert(name.to_string());
        let units = self.cat(&name).await?;
        // A template is no unit that could be shown: its sockets are looked for by their names.
        if name.is_template() {
            let other = name.with_type(if name.is_service() { "socket" } else { "service" });
            let others: Vec<_> = units.iter().flat_map(Unit::sockets).chain([other]).collect();
            loaded.add(0, units)?;
            for other in others {
                loaded.add(0, self.cat(&other).await.unwrap_or_default())?;
            }
            return Ok(());
        }
        loaded.add(0, units)?;
        let property = if name.is_service() { "TriggeredBy" } else { "Triggers" };
        let others = self.systemctl(&["show", "--value", "-p", property, "--", &name.to_string()]).await?;
        for other in others.split_whitespace().filter_map(UnitName::parse) {
            if other.is_socket() || other.is_service() {
                loaded.add(0, self.cat(&other).await?)?;
                self.ask_service(other, loaded).await;
            }
        }
        self.ask_service(name, loaded).await;
        Ok(())
    }

    /// What is in the unit may not be what the program does.
    async fn ask_service(&self, name: UnitName, loaded: &mut Loaded) {
        if name.is_service()
            && let Some(signals) = running::reload_signals(&name, self.user).await
        {
            loaded.reload_signals.insert(name, signals);
        }
    }

    async fn cat(&self, name: &UnitName) -> Result<Vec<Unit>, String> {
        let text = self.systemctl(&["cat", "--", &name.to_string()]).await?;
        let mut units = cat::split(text.as_bytes()).map_err(|e| format!("systemctl cat {name}: {e}"))?;
        // The file of an instance is the template's.
        if let [unit] = units.as_mut_slice() {
            unit.name = name.clone();
        }
        Ok(units)
    }

    async fn systemctl(&self, arguments: &[&str]) -> Result<String, String> {
        let asked = systemctl::ask(self.user, arguments, systemctl::TIMEOUT).await;
        asked.map_err(|problem| format!("{problem}; name files or a directory instead"))
    }

    /// The version of the manager of this machine.
    pub(super) async fn version(&self) -> Option<u32> {
        systemctl::version().await
    }
}

impl Loaded {
    /// What was there before stays: a unit may be named and be found beside another one.
    fn add(&mut self, group: usize, units: Vec<Unit>) -> Result<(), String> {
        self.groups.resize_with(self.groups.len().max(group + 1), Vec::new);
        for unit in units.into_iter().filter(|unit| unit.name.is_service() || unit.name.is_socket()) {
            if self.names.insert((group, unit.name.clone())) {
                if self.names.len() > MOST_UNITS {
                    return Err(format!("more than {MOST_UNITS} units: name fewer at a time"));
                }
                self.groups[group].push(unit);
            }
        }
        Ok(())
    }
}

/// What a directory has.
#[derive(Debug, Default)]
struct Directory {
    path: PathBuf,
    /// Without aliases and masked ones, which are links to another name or to /dev/null.
    units: Vec<(UnitName, PathBuf)>,
    /// By the unit that they are links to.
    aliases: BTreeMap<UnitName, Vec<UnitName>>,
    /// Directories, but for those that belong to units, hidden ones, and links.
    below: Vec<PathBuf>,
}

impl Directory {
    fn read(path: &Path) -> Result<Self, String> {
        let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let entries = fs::read_dir(shown).map_err(|e| format!("{}: {e}", shown.display()))?;
        let mut directory = Self { path: path.to_owned(), ..Self::default() };
        let of_units = [".d", ".wants", ".requires", ".upholds"];
        for entry in entries.flatten() {
            let file = entry.file_name();
            let (path, text) = (path.join(&file), file.to_string_lossy());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !text.starts_with('.') && !of_units.iter().any(|end| text.ends_with(end)) {
                    directory.below.push(path);
                }
            } else if let Some(name) = unit_name(&path).filter(|_| path.is_file()) {
                match directory.alias_of(&name, &path) {
                    Some(Alias::Here(other)) => directory.aliases.entry(other).or_default().push(name),
                    Some(Alias::Elsewhere) => {}
                    None => directory.units.push((name, path)),
                }
            }
        }
        directory.units.sort();
        directory.below.sort();
        directory.aliases.values_mut().for_each(|names| names.sort());
        Ok(directory)
    }

    fn alias_of(&self, name: &UnitName, path: &Path) -> Option<Alias> {
        let (link, file) = (fs::read_link(path).ok()?, fs::canonicalize(path).ok());
        let Some(other) = file.as_deref().and_then(unit_name) else {
            return (link.file_name() != path.file_name()).then_some(Alias::Elsewhere);
        };
        let here = || fs::canonicalize(self.path.join(other.to_string())).ok() == file;
        match &other {
            other if other == name => None,
            // An instance that is a link to its template is no other name of that.
            other if name.template().as_ref() != Some(other) && here() => Some(Alias::Here(other.clone())),
            _ => Some(Alias::Elsewhere),
        }
    }
}

/// What a name is that stands for another one.
#[derive(Debug)]
enum Alias {
    /// Of a unit in the same directory.
    Here(UnitName),
    Elsewhere,
}

/// Ends the problem with a file that is named like a unit and is none.
const NO_UNIT: &str = "no unit of systemd";

/// Whose file it is, if it is somebody else's: D-Bus and Avahi call theirs NAME.service as well.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(64 * 1024)]).into_owned();
    let mut lines = begin.trim_start_matches('\u{feff}').lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', ';']))?;
    match first {
        "[D-BUS Service]" => Some("D-Bus"),
        _ if first.starts_with('<') => Some("Avahi, or another XML file"),
        _ => None,
    }
}

fn unit_name(path: &Path) -> Option<UnitName> {
    let name = UnitName::parse(path.file_name()?.to_str()?)?;
    (name.is_service() || name.is_socket()).then_some(name)
}

/// The file of a unit in a directory; of an instance that has none, its template's.
fn find(directory: &Path, name: &UnitName) -> Option<PathBuf> {
    let candidates = [Some(name.clone()), name.template()];
    let path = |name: UnitName| directory.join(name.to_string());
    candidates.into_iter().flatten().map(path).find(|path| path.is_file())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let metadata = fs::metadata(path).map_err(|e| problem(&e))?;
    // A masked drop-in is a link to /dev/null.
    if !metadata.is_file() && fs::canonicalize(path).is_ok_and(|to| to != Path::new("/dev/null")) {
        return Err(problem(&"no regular file"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(problem(&format!("larger than {LARGEST_FILE} bytes, so it is no unit")));
    }
    fs::read(path).map_err(|e| problem(&e))
}
