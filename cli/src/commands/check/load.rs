//! Reading units: files, directories, what the manager knows, stdin.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cat;
use super::name::UnitName;
use super::pair::{World, reference, service_of, sockets_setting};
use super::unit::{File, Unit};
use crate::systemctl;

/// More than this is no unit.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

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
    pub(super) world: World,
    pub(super) problems: Vec<String>,
    /// Units that were named, or are in a directory or a text that was; not those that were found to belong to them.
    pub(super) asked: BTreeSet<String>,
    /// Something was asked from the manager of this machine.
    pub(super) from_manager: bool,
}

impl Sources {
    pub(super) async fn load(&self, arguments: &[String]) -> Loaded {
        let mut loaded = Loaded::default();
        for argument in arguments {
            if let Err(problem) = self.argument(argument, &mut loaded).await {
                loaded.problems.push(problem);
            }
        }
        if loaded.world.units.is_empty() && loaded.problems.is_empty() {
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
            loaded.add(units);
            return Ok(());
        }
        if path.is_dir() {
            return self.directory(path, loaded);
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
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        loaded.asked.insert(name.to_string());
        let unit = self.read(name, path)?;
        let others: Vec<_> = if unit.name.is_socket() {
            service_of(&unit).into_iter().collect()
        } else {
            let asked = sockets_setting(&unit).into_iter().filter_map(|name| reference(&name));
            asked.chain([unit.name.with_type("socket")]).collect()
        };
        let mut units = vec![unit];
        for other in others {
            if let Some(path) = find(&directory, &other) {
                units.push(self.read(other, &path)?);
            }
        }
        // Sockets of another name say themselves whose they are.
        if units[0].name.is_service() {
            for (name, path) in units_in(&directory)?.into_iter().filter(|(name, _)| name.is_socket()) {
                let Ok(socket) = self.read(name, &path) else { continue };
                if service_of(&socket).as_ref() == Some(&units[0].name) {
                    units.push(socket);
                }
            }
        }
        loaded.add(units);
        Ok(())
    }

    fn directory(&self, directory: &Path, loaded: &mut Loaded) -> Result<(), String> {
        for (name, path) in units_in(directory)? {
            match self.read(name, &path) {
                Ok(unit) => {
                    loaded.asked.insert(unit.name.to_string());
                    loaded.add(vec![unit]);
                }
                Err(problem) => loaded.problems.push(problem),
            }
        }
        Ok(())
    }

    fn read(&self, name: UnitName, path: &Path) -> Result<Unit, String> {
        let mut files = vec![read(path)?];
        let beside = path.parent().map(Path::to_owned);
        // Of one file name the most special directory wins; the file names decide the order.
        let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
        let places: Vec<_> = beside.into_iter().chain(self.drop_ins.iter().cloned()).collect();
        for special in name.drop_in_directories() {
            for place in &places {
                let Ok(entries) = fs::read_dir(place.join(&special)) else { continue };
                let paths = entries.flatten().map(|e| e.path()).filter(|p| p.extension() == Some(OsStr::new("conf")));
                drop_ins.extend(paths.filter_map(|p| Some((p.file_name()?.to_owned(), p.clone()))));
            }
        }
        for path in drop_ins.into_values() {
            files.push(read(&path)?);
        }
        Ok(Unit::new(name, files))
    }

    async fn ask_manager(&self, argument: &str, loaded: &mut Loaded) -> Result<(), String> {
        let name = UnitName::parse(argument).or_else(|| UnitName::parse(&format!("{argument}.service")));
        let name = name.ok_or_else(|| format!("{argument}: neither a file nor the name of a unit"))?;
        if !name.is_service() && !name.is_socket() {
            return Err(format!("{argument}: only services and sockets are looked into"));
        }
        loaded.from_manager = true;
        loaded.asked.insert(name.to_string());
        loaded.add(self.cat(&name).await?);
        let property = if name.is_service() { "TriggeredBy" } else { "Triggers" };
        let others = self.systemctl(&["show", "--value", "-p", property, "--", &name.to_string()]).await?;
        for other in others.split_whitespace().filter_map(UnitName::parse) {
            if other.is_socket() || other.is_service() {
                loaded.add(self.cat(&other).await?);
            }
        }
        Ok(())
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
        self.systemctl(&["--version"]).await.ok()?.split_whitespace().nth(1)?.parse().ok()
    }
}

impl Loaded {
    /// What was there before stays: a unit may be named and be found beside another one.
    fn add(&mut self, units: Vec<Unit>) {
        for unit in units {
            let wanted = unit.name.is_service() || unit.name.is_socket();
            if wanted && !self.world.units.iter().any(|known| known.name == unit.name) {
                self.world.units.push(unit);
            }
        }
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

/// Units of a directory, without aliases and masked ones, which are links to another name or to /dev/null.
fn units_in(directory: &Path) -> Result<Vec<(UnitName, PathBuf)>, String> {
    let shown = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = fs::read_dir(shown).map_err(|e| format!("{}: {e}", shown.display()))?;
    let mut units: Vec<_> = entries
        .flatten()
        .map(|entry| directory.join(entry.file_name()))
        .filter(|path| fs::read_link(path).ok().is_none_or(|to| to.file_name() == path.file_name()))
        .filter(|path| path.is_file())
        .filter_map(|path| Some((unit_name(&path)?, path)))
        .collect();
    units.sort();
    Ok(units)
}

fn read(path: &Path) -> Result<File, String> {
    let problem = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let metadata = fs::metadata(path).map_err(|e| problem(&e))?;
    // A masked drop-in is a link to /dev/null.
    if !metadata.is_file() && fs::canonicalize(path).is_ok_and(|to| to != Path::new("/dev/null")) {
        return Err(problem(&"no regular file"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(problem(&format!("larger than {LARGEST_FILE} bytes, so it is no unit")));
    }
    Ok(File::new(path.display().to_string(), &fs::read(path).map_err(|e| problem(&e))?))
}
