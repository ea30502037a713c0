//! Programs, keys, and a directory to upgrade in.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use handover::upgrade::{Done, ProgramSource, Trust, Upgrade, UpgradeBuilder, UpgradeStep, Verdict};
use handover::{Error, Result};
use minisign::KeyPair;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A small program of this machine; what comes after an ELF file's end does no harm, and makes
/// another program of it.
pub(crate) fn program(version: &str) -> Vec<u8> {
    let mut bytes = fs::read("/bin/true").unwrap();
    bytes.extend_from_slice(version.as_bytes());
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// With a program in it, as it was installed first.
#[derive(Debug)]
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) program: PathBuf,
    pub(crate) steps: Arc<Mutex<Vec<UpgradeStep>>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web");
        fs::write(&path, program("old")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self { program: path, directory, steps: Arc::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn builder(&self, source: impl Into<ProgramSource>, trust: Trust) -> UpgradeBuilder {
        let steps = Arc::clone(&self.steps);
        Upgrade::builder(&self.program, source.into(), trust)
            .on_step(move |step| steps.lock().unwrap().push(step.clone()))
    }

    pub(crate) fn unsigned(&self, source: impl Into<ProgramSource>) -> UpgradeBuilder {
        self.builder(source, Trust::unsigned())
    }

    /// The service takes it.
    pub(crate) fn taken(&self, builder: UpgradeBuilder) -> Upgrade {
        builder.reload_with(|| async { Verdict::Taken }).unwrap()
    }

    #[track_caller]
    pub(crate) fn is(&self, version: &str) {
        let found = fs::read(&self.program).unwrap();
        assert!(found == program(version), "the program is not {version}");
        assert_eq!(fs::metadata(&self.program).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(succeeds(&self.program));
    }

    /// Nothing has changed, and nothing is left.
    #[track_caller]
    pub(crate) fn is_untouched(&self) {
        self.is("old");
        assert_eq!(self.kept(), Vec::<String>::new());
        assert!(!self.path(".web.handover/candidate").exists() && !self.path(".web.handover/link").exists());
        assert!(
            !self.steps.lock().unwrap().iter().any(|step| matches!(step, UpgradeStep::Kept | UpgradeStep::Installed))
        );
    }

    pub(crate) fn kept(&self) -> Vec<String> {
        let versions = fs::read_dir(self.path(".web.handover/versions")).into_iter().flatten().flatten();
        let mut names: Vec<_> = versions.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A key with what it has signed.
pub(crate) struct Signer(KeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate_unencrypted_keypair().unwrap())
    }

    pub(crate) fn line(&self) -> String {
        self.0.pk.to_base64()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::keys([self.line().as_str()]).unwrap()
    }

    /// For a program that is called `web`, as it is in nearly every test.
    pub(crate) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.sign_with(bytes, "timestamp:1700000000\tfile:web\thashed")
    }

    pub(crate) fn sign_with(&self, bytes: &[u8], comment: &str) -> Vec<u8> {
        minisign::sign(Some(&self.0.pk), &self.0.sk, bytes, Some(comment), None).unwrap().into_string().into_bytes()
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(crate::PATIENCE, future).await.expect("an outcome in time") })
}

pub(crate) fn run(upgrade: &Upgrade) -> Result<Done> {
    block_on(upgrade.run())
}

#[track_caller]
pub(crate) fn upgraded(outcome: &Result<Done>) {
    assert!(matches!(outcome, Ok(Done::Upgraded { .. })), "{outcome:?}");
}

#[track_caller]
pub(crate) fn up_to_date(outcome: &Result<Done>) {
    assert!(matches!(outcome, Ok(Done::UpToDate { .. })), "{outcome:?}");
}

/// A fetch that failed, and said that.
#[track_caller]
pub(crate) fn not_fetched(outcome: Result<Done>, why: &str) {
    let error: Error = outcome.expect_err("what cannot be fetched");
    assert!(error.is_fetch() && error.to_string().contains(why), "{why}: {error}");
}

/// A candidate that was refused for that.
#[track_caller]
pub(crate) fn refused(outcome: Result<Done>, why: &str) {
    let error: Error = outcome.expect_err("what is not good");
    assert!(error.is_candidate() && error.to_string().contains(why), "{why}: {error}");
}

/// Another test's child may have the file open for writing, for the moment until it executes its
/// program.
pub(crate) fn unless_busy<T, E: std::error::Error>(mut start: impl FnMut() -> std::result::Result<T, E>) -> T {
    handover_testing::processes::until("nobody writes the program", || match start() {
        Err(e) if format!("{e:?}").contains("ExecutableFileBusy") => None,
        other => Some(other.unwrap()),
    })
}

pub(crate) fn succeeds(program: &Path) -> bool {
    unless_busy(|| Command::new(program).status()).success()
}

/// Written and closed before anybody could want to run it.
pub(crate) fn executable(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_permissions(Permissions::from_mode(0o755)).unwrap();
}
