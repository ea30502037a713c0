//! Where the program of `--rust` has the library from: where this tool is from, unless it is told.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// What cargo writes of the programs that it has installed, in the directory above `bin`.
const INSTALLED: &str = ".crates.toml";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Library {
    Registry,
    /// A checkout.
    Path(String),
    Git {
        url: String,
        revision: String,
    },
}

impl Library {
    /// Takes a checkout that somebody names.
    pub(super) fn at(directory: &Path) -> Result<Self, String> {
        let shown = directory.display();
        let absolute = directory.canonicalize().map_err(|e| format!("--library {shown}: {e}"))?;
        if !is_checkout(&absolute) {
            let version = env!("CARGO_PKG_VERSION");
            return Err(format!("--library {shown}: its Cargo.toml is not that of the crate handover {version}"));
        }
        Self::path(&absolute).ok_or_else(|| format!("--library {shown}: cargo takes no path that is not UTF-8"))
    }

    /// Finds what this tool is from. Cargo has noted where it installed a tool from; one that was
    /// not installed is in the `target` of a checkout, or is run from there. Else it is of a
    /// package, and the library is the registry's.
    pub(super) fn beside(tool: &Path, working_directory: &Path) -> Self {
        let installed =
            tool.parent().and_then(Path::parent).and_then(|root| fs::read_to_string(root.join(INSTALLED)).ok());
        if let Some(source) = installed.as_deref().and_then(installed_from) {
            return source;
        }
        let above = tool.ancestors().chain(working_directory.ancestors());
        above.filter(|directory| is_checkout(directory)).find_map(Self::path).unwrap_or(Self::Registry)
    }

    fn path(directory: &Path) -> Option<Self> {
        directory.to_str().map(|path| Self::Path(path.to_owned()))
    }

    /// Writes the beginning of the dependency's table in a Cargo.toml.
    pub(super) fn dependency(&self) -> String {
        match self {
            Self::Registry => {
                let version = env!("CARGO_PKG_VERSION");
                // 0.1.3 is good for 0.1.
                let version = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
                format!("version = \"{version}\"")
            }
            Self::Path(path) => format!("path = {}", string(path)),
            Self::Git { url, revision } => format!("git = {}, rev = {}", string(url), string(revision)),
        }
    }
}

/// Quotes for TOML, whose basic strings have the escapes of JSON's.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Tells whether the library is there, of the version that this tool is of.
fn is_checkout(directory: &Path) -> bool {
    let Some(manifest) = manifest(directory) else { return false };
    let package = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
    let version = |of: &str| manifest.get(of)?.get("package")?.get("version")?.as_str();
    package == Some("handover") && version("workspace") == Some(env!("CARGO_PKG_VERSION"))
}

/// Tells whether cargo would take a package in this directory for a member of a workspace above it,
/// and refuse it because the workspace does not name it.
pub(super) fn is_in_a_workspace(directory: &Path) -> bool {
    let above = directory.ancestors().skip(1);
    above.filter_map(manifest).any(|manifest| manifest.contains_key("workspace"))
}

fn manifest(directory: &Path) -> Option<Table> {
    fs::read_to_string(directory.join("Cargo.toml")).ok()?.parse().ok()
}

/// Reads lines as `"handover-cli 0.1.0 (path+file:///src/handover/cli)" = ["handover"]`.
fn installed_from(noted: &str) -> Option<Library> {
    let noted: Table = noted.parse().ok()?;
    let packages = noted.get("v1")?.as_table()?;
    let this = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), " (");
    let source = packages.keys().find_map(|package| package.strip_prefix(this)?.strip_suffix(')'))?;
    if let Some(path) = source.strip_prefix("path+file://") {
        // The tool's own directory is one of the library's.
        let directory = Path::new(path).ancestors().find(|directory| is_checkout(directory))?;
        return Library::path(directory);
    }
    if let Some((url, revision)) = source.strip_prefix("git+").and_then(|git| git.rsplit_once('#')) {
        let url = url.split_once('?').map_or(url, |(url, _)| url);
        return Some(Library::Git { url: url.to_owned(), revision: revision.to_owned() });
    }
    Some(Library::Registry)
}

/// Makes a path absolute, without the links in what is there of it.
pub(super) fn absolute(directory: &Path, working_directory: &Path) -> PathBuf {
    let joined = working_directory.join(directory);
    let there = joined.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there {
        Some((above, canonical)) => canonical.join(joined.strip_prefix(above).unwrap_or(Path::new(""))),
        None => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a Cargo.toml as that of the library's checkout.
    fn checkout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let version = env!("CARGO_PKG_VERSION");
        let manifest = format!("[workspace.package]\nversion = \"{version}\"\n[package]\nname = \"handover\"\n");
        fs::write(dir.path().join("Cargo.toml"), manifest).expect("a manifest");
        dir
    }

    #[test]
    fn it_is_from_where_the_tool_is_from() {
        let (checkout, elsewhere) = (checkout(), tempfile::tempdir().expect("a directory"));
        let ours = Library::path(checkout.path());
        let bin = elsewhere.path().join("bin/handover");
        let tool = checkout.path().join("target/debug/handover");
        assert_eq!(Some(Library::beside(&tool, elsewhere.path())), ours);
        assert_eq!(Some(Library::beside(&bin, &checkout.path().join("cli"))), ours);
        assert_eq!(Library::beside(&bin, elsewhere.path()), Library::Registry);

        let installed = |source: &str| {
            let noted = format!("[v1]\n\"handover-cli {} ({source})\" = [\"handover\"]\n", env!("CARGO_PKG_VERSION"));
            fs::write(elsewhere.path().join(INSTALLED), noted).expect("a file");
            // Also where it is called in a checkout: it is not of that one.
            Library::beside(&bin, checkout.path())
        };
        assert_eq!(installed("registry+https://example.com/index"), Library::Registry);
        assert_eq!(Some(installed(&format!("path+file://{}/cli", checkout.path().display()))), ours);
        let git = installed("git+https://example.com/handover?branch=main#0123abc");
        assert_eq!(git.dependency(), "git = \"https://example.com/handover\", rev = \"0123abc\"");
    }

    #[test]
    fn only_a_checkout_of_this_version_will_do() {
        let checkout = checkout();
        assert!(Library::at(checkout.path()).is_ok());
        let manifest = "[workspace.package]\nversion = \"77.0.0\"\n[package]\nname = \"handover\"\n";
        fs::write(checkout.path().join("Cargo.toml"), manifest).expect("a manifest");
        let told = Library::at(checkout.path()).expect_err("another version");
        assert!(told.contains("is not that of the crate handover"), "{told}");
        assert!(Library::at(&checkout.path().join("none")).is_err());
    }

    #[test]
    fn a_path_is_quoted_for_toml() {
        assert_eq!(Library::Path("/a b/\"c\"\\".into()).dependency(), r#"path = "/a b/\"c\"\\""#);
    }

    #[test]
    fn a_workspace_above_is_seen() {
        let checkout = checkout();
        assert!(is_in_a_workspace(&checkout.path().join("a/b")));
        assert!(!is_in_a_workspace(checkout.path()), "its own manifest is replaced");
    }
}
