//! Faults of processes that write a cache file. Each fault is a real one of a real process, and results in the correct file
//! or in a clear error, never in a wrong file. Only an interrupt and a kill leave a partial file, which the next write resumes.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::runner_support::limit_file_size;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The cache file and its partial file, whose size shows the progress of a write.
const NAME: &str = "cache.safetensors";
const PARTIAL: &str = ".cache.safetensors.partial";
const KILLS: usize = 50;
/// Only a failing test waits this long.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A small write in many batches.
fn command(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actbench"));
    command.args(["cache", "--samples", "120", "--sweep-layers", "2", "--batch-size", "1", "--threads", "1", "--out"]);
    command.arg(out).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Slower instructions than the best ones, so that a write takes long enough to be killed in the middle.
    command.env(actbench_kernels::cpu::ISA_VARIABLE, "avx2");
    command
}

fn entries(directory: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `(tokens the model ran on, all tokens)`, as the command prints them.
fn tokens_run(output: &Output) -> (usize, usize) {
    let text = text(output);
    let (_, counts) = text.split_once("ran the model on ").unwrap_or_else(|| panic!("{text}"));
    let numbers: Vec<usize> = counts.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[track_caller]
fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output
}

/// The command fails with the exit status `code` and one error line, which contains each of `words`.
#[track_caller]
fn assert_fails(mut command: Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Starts a write and returns once its partial file has `bytes`, or the process has ended.
fn start_until(out: &Path, bytes: u64) -> (Child, bool) {
    let partial = out.with_file_name(PARTIAL);
    let mut child = command(out).spawn().unwrap();
    let start = Instant::now();
    loop {
        if len_of(&partial) >= bytes {
            return (child, true);
        }
        if child.try_wait().unwrap().is_some() {
            return (child, false);
        }
        assert!(start.elapsed() < TIMEOUT, "the write does not reach {bytes} bytes");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The bytes of an uninterrupted write, and the largest observed size of its partial file.
fn uninterrupted(directory: &Path) -> (Vec<u8>, u64) {
    let out = directory.join(NAME);
    let partial = out.with_file_name(PARTIAL);
    let mut child = command(&out).spawn().unwrap();
    let mut largest = 0;
    while child.try_wait().unwrap().is_none() {
        largest = largest.max(len_of(&partial));
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(entries(directory), [NAME]);
    (fs::read(&out).unwrap(), largest)
}

#[test]
fn killed_write_is_resumed_to_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    let (expected, largest) = uninterrupted(whole.path());
    assert!(largest > expected.len() as u64, "no journal was seen");
    let mut random = ChaCha8Rng::seed_from_u64(50);
    let (mut n_killed, mut n_resumed) = (0, 0);
    for kill in 0..KILLS {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join(NAME);
        // The journal grows batch by batch; below it are the moments before the first batch.
        let bytes = match kill % 10 {
            0 => 1,
            _ => random.random_range(expected.len() as u64..=largest),
        };
        let (mut child, running) = start_until(&out, bytes);
        if running {
            // A moment later, so that the kill hits any point of the next batch.
            std::thread::sleep(Duration::from_micros(random.random_range(0..8000)));
        }
        child.kill().unwrap();
        let mut killed = child.wait().unwrap().signal() == Some(libc::SIGKILL);
        if kill % 3 == 0 && killed {
            // Kill it once more, while or before it resumes.
            let mut again = command(&out).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
            again.kill().unwrap();
            killed = again.wait().unwrap().signal() == Some(libc::SIGKILL);
        }
        let left = entries(directory.path());
        if killed && left == [PARTIAL] {
            n_killed += 1;
        } else {
            // Killed before the file was made, between rename and exit, or not in time.
            assert!(left.is_empty() || left == [NAME], "kill {kill} left {left:?}");
        }
        let again = succeed(command(&out));
        let (run, all) = tokens_run(&again);
        n_resumed += usize::from(left == [PARTIAL] && run < all);
        assert_eq!(entries(directory.path()), [NAME], "kill {kill}");
        assert!(fs::read(&out).unwrap() == expected, "kill {kill} at {bytes} bytes changed the file");
    }
    eprintln!("{n_killed} of {KILLS} kills interrupted a write, {n_resumed} of these were resumed");
    assert!(n_killed >= KILLS / 2, "only {n_killed} of {KILLS} kills interrupted a write");
    assert!(n_resumed >= KILLS / 4, "only {n_resumed} of {n_killed} killed writes were resumed");
}

/// A partial file with some batches in it.
fn killed_write(out: &Path, expected: &[u8], largest: u64) {
    let middle = (expected.len() as u64 + largest) / 2;
    let (mut child, running) = start_until(out, middle);
    assert!(running, "the write ended before it could be killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn damaged_partial_file_is_recomputed() {
    let whole = tempfile::tempdir().unwrap();
    let (expected, largest) = uninterrupted(whole.path());
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join(NAME);
    let partial = directory.path().join(PARTIAL);
    killed_write(&out, &expected, largest);
    let left = fs::read(&partial).unwrap();
    let header = 8 + u64::from_le_bytes(left[..8].try_into().unwrap()) as usize;
    let mut random = ChaCha8Rng::seed_from_u64(51);
    for damage in 0..8 {
        let mut bytes = left.clone();
        match damage {
            // Every byte of data, as when the journal reached the disk and the data did not.
            0 => bytes[header..expected.len()].fill(0),
            1 => bytes.truncate(expected.len()),
            2 => bytes.truncate(header + 1),
            _ => {
                let index = random.random_range(0..bytes.len());
                bytes[index] ^= 1u8 << random.random_range(0..8);
            }
        }
        fs::write(&partial, bytes).unwrap();
        let _ = fs::remove_file(&out);
        let output = succeed(command(&out));
        if damage < 3 {
            let (run, all) = tokens_run(&output);
            assert_eq!(run, all, "damage {damage}: damaged samples were accepted");
        }
        assert_eq!(entries(directory.path()), [NAME], "damage {damage}");
        assert!(fs::read(&out).unwrap() == expected, "damage {damage} changed the file");
    }
    // A partial file of other settings is not resumed.
    fs::write(&partial, &left).unwrap();
    fs::remove_file(&out).unwrap();
    let mut other = command(&out);
    other.args(["--pool", "max"]);
    let (run, all) = tokens_run(&succeed(other));
    assert_eq!(run, all);
    assert_eq!(entries(directory.path()), [NAME]);
}

#[test]
fn second_writer_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join(NAME);
    let (mut first, running) = start_until(&out, 1);
    assert!(running);
    // Suspended in the middle of its write, so that both writers overlap.
    // SAFETY: a plain system call on a child of this process that has not been waited for.
    assert_eq!(unsafe { libc::kill(first.id() as libc::pid_t, libc::SIGSTOP) }, 0);
    assert_fails(command(&out), 2, &["another process is writing", NAME, "wait for it or use another path"]);
    assert_eq!(entries(directory.path()), [PARTIAL]);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(first.id() as libc::pid_t, libc::SIGCONT) }, 0);
    assert!(first.wait().unwrap().success());
    assert_eq!(entries(directory.path()), [NAME]);
    succeed(command(&out));
}

#[test]
fn interrupted_write_is_resumed_to_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    let (expected, largest) = uninterrupted(whole.path());
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join(NAME);
        // Some batches are in the journal.
        let (child, running) = start_until(&out, (3 * expected.len() as u64 + largest) / 4);
        assert!(running, "the write ended before it could be interrupted");
        // SAFETY: a plain system call on a child of this process that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
        let output = child.wait_with_output().unwrap();
        let message = text(&output);
        assert_eq!(output.status.code(), Some(130), "{message}");
        let partial = directory.path().join(PARTIAL);
        let kept = format!("{} has the finished samples; the same command resumes the write", partial.display());
        assert!(message.contains("error: interrupted") && message.contains(&kept), "{message}");
        assert_eq!(entries(directory.path()), [PARTIAL]);
        let (run, all) = tokens_run(&succeed(command(&out)));
        assert!(run < all, "{run} of {all} tokens: nothing was resumed");
        assert_eq!(entries(directory.path()), [NAME]);
        assert!(fs::read(&out).unwrap() == expected, "signal {signal} changed the file");
    }
}

#[test]
fn file_size_limit_at_any_point_is_an_error() {
    let whole = tempfile::tempdir().unwrap();
    let (expected, largest) = uninterrupted(whole.path());
    let middle = (expected.len() as u64 + largest) / 2;
    // At once, at the last byte, at the first record of the journal and in its middle.
    for bytes in [100, expected.len() as u64 - 1, expected.len() as u64 + 1, middle] {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join(NAME);
        let mut limited = command(&out);
        limit_file_size(&mut limited, bytes);
        assert_fails(limited, 1, &["cannot write", directory.path().to_str().unwrap(), NAME, "File too large"]);
        assert!(entries(directory.path()).is_empty(), "{bytes} bytes: {:?}", entries(directory.path()));
    }
}

#[test]
fn full_disk_is_an_error_without_leftovers() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12k", "tmpfs"]).arg(&mount).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a small file system cannot be mounted here");
        return;
    }
    let mut full = command(&mount.join(NAME));
    let output = full.output().unwrap();
    let left = entries(&mount);
    let unmounted = Command::new("umount").arg(&mount).status().unwrap();
    assert!(unmounted.success());
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot write") && text.contains(NAME) && text.contains("No space left"), "{text}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn damaged_file_is_rejected_and_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, _) = uninterrupted(directory.path());
    let out = directory.path().join(NAME);
    let check = |bytes: &[u8], word: &str| {
        fs::write(&out, bytes).unwrap();
        assert_fails(command(&out), 2, &[out.to_str().unwrap(), word, "delete it"]);
        assert!(fs::read(&out).unwrap() == bytes, "the damaged file was changed");
        assert_eq!(entries(directory.path()), [NAME]);
    };
    let mut random = ChaCha8Rng::seed_from_u64(52);
    for _ in 0..6 {
        let mut bytes = whole.clone();
        // After the header, whose bits select the kind of file; the tests of the engine flip those.
        let index = random.random_range(4096..bytes.len());
        bytes[index] ^= 1u8 << random.random_range(0..8);
        check(&bytes, "is damaged");
    }
    for len in [4096, whole.len() / 2, whole.len() - 1] {
        check(&whole[..len], "truncated");
    }
}

#[test]
fn unwritable_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    assert_fails(command(&file.join(NAME)), 2, &["file/", NAME, "Not a directory"]);
    assert_fails(command(&directory.path().join("missing").join(NAME)), 1, &["cannot create", "missing", NAME]);
    // Not even root can create a file here.
    assert_fails(command(&Path::new("/proc").join(NAME)), 1, &["cannot create", "/proc", NAME]);

    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    match fs::write(closed.join("probe"), "") {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            assert_fails(command(&closed.join(NAME)), 1, &["cannot create", "closed", NAME, "Permission denied"]);
        }
        _ => eprintln!("SKIPPED in part: permissions do not restrict this user"),
    }
}
