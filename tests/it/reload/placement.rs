//! Where fds end in a new process, whatever numbers they had here. In a process of its own: numbers
//! are per process, and nobody else may take one meanwhile. Nor does anybody reap here, so that
//! what is left is seen.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use handover::Program;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::{Case, cases};
use handover_testing::processes::{self, End, end_of};
use handover_testing::world::launch;

/// Names the file for this process's complaints, and makes this binary such a process.
pub(crate) const RESULT: &str = "HANDOVER_IT_PLACEMENT";

pub(crate) const CASES: &[Case] = cases![fds_arrive_in_order_from_wherever_they_were];

fn fds_arrive_in_order_from_wherever_they_were() {
    let complaints = tempfile::NamedTempFile::new().unwrap();
    let pid = launch(Program::new(std::env::current_exe().unwrap()).env(RESULT, complaints.path()));
    let end = end_of(pid);
    assert!(end == End::Exited(0), "{end:?}: {}", fs::read_to_string(complaints.path()).unwrap());
}

pub(crate) fn main(complaints: &Path) -> ExitCode {
    nix::unistd::dup2_stderr(File::create(complaints).unwrap()).unwrap();
    every_order_of_the_first_numbers();
    random_numbers();
    from_a_thread_among_many_fds();
    the_table_is_as_large_as_ours();
    what_failed_leaves_nothing();
    ExitCode::SUCCESS
}

/// The lowest free number, as the kernel gives it.
fn unique() -> File {
    tempfile::tempfile().unwrap()
}

fn start(files: Vec<File>) {
    let expected: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().ino()).collect();
    let mut program = Program::new("/bin/sleep").arg("1000");
    for file in files {
        program = program.socket("x", file);
    }
    let pid = program.start().unwrap().pid();
    processes::wait_until_executed(pid);
    let expected: Vec<(u32, u64)> = (3..).zip(expected).collect();
    // While it is being loaded it has libraries open, for a moment.
    processes::until("these fds and no others", || (inodes(pid) == expected).then_some(()));
    processes::signal(pid, Signal::SIGKILL);
    waitpid(Pid::from_raw(pid.cast_signed()), None).unwrap();
}

fn inodes(pid: u32) -> Vec<(u32, u64)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let number = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().parse().unwrap();
    let mut found: Vec<(u32, u64)> =
        entries.filter_map(|entry| Some((number(&entry), fs::metadata(entry.path()).ok()?.ino()))).collect();
    found.retain(|(number, _)| *number > 2);
    found.sort_unstable();
    found
}

/// All 120 orders of 3, 4, 5, 6 and 7, each of them both a source and a target.
fn every_order_of_the_first_numbers() {
    const COUNT: usize = 5;
    for mut order in 0..120 {
        let mut files: Vec<File> = (0..COUNT).map(|_| unique()).collect();
        for left in (1..=COUNT).rev() {
            files.swap(left - 1, order % left);
            order /= left;
        }
        start(files);
    }
}

/// Some of them passed, in any order; the others in the way.
fn random_numbers() {
    let mut random = Random(0x5EED);
    for _ in 0..200 {
        let mut files: Vec<File> = (0..1 + random.below(16)).map(|_| unique()).collect();
        for at in (1..files.len()).rev() {
            files.swap(at, random.below(at + 1));
        }
        let in_the_way = files.split_off(random.below(files.len() + 1));
        let gaps = files.split_off(files.len() - files.len() / 3);
        drop(gaps);
        start(files);
        drop(in_the_way);
    }
}

fn from_a_thread_among_many_fds() {
    let many: Vec<File> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
    std::thread::spawn(|| start((0..200).map(|_| unique()).collect())).join().unwrap();
    drop(many);
}

/// Else it would have to grow, which stops a process with threads for 10 ms and more.
fn the_table_is_as_large_as_ours() {
    let entries_of_a_new_one = || {
        let pid = Program::new("/bin/sleep").arg("1000").start().unwrap().pid();
        let entries = processes::fd_table(pid);
        processes::signal(pid, Signal::SIGKILL);
        waitpid(Pid::from_raw(pid.cast_signed()), None).unwrap();
        entries
    };
    assert_eq!(entries_of_a_new_one(), 1024, "the least");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 4000, hard).unwrap();
    let high = nix::fcntl::fcntl(unique(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3000)).unwrap();
    nix::unistd::close(high).unwrap();
    assert_eq!(entries_of_a_new_one(), processes::fd_table(std::process::id()));
    setrlimit(Resource::RLIMIT_NOFILE, 600, hard).unwrap();
    assert!(entries_of_a_new_one() >= 600, "up to the limit");
}

fn what_failed_leaves_nothing() {
    let fds = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    for _ in 0..10 {
        let error = Program::new("/nowhere/web").socket("x", unique()).start().unwrap_err();
        assert!(error.is_generation());
    }
    assert_eq!(fds(), before);
    let us = std::process::id();
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let children: Vec<u32> = numbers.filter(|pid| processes::look(*pid).is_some_and(|p| p.parent == us)).collect();
    assert!(children.is_empty(), "{children:?}");
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}
