//! Files, links, pipes, modes and locks.

use std::ffi::CString;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, symlink};

use super::*;

fn fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a string that ends in zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn write_replaces_the_file_and_leaves_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    write_atomically(&path, b"one").unwrap();
    write_atomically(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let error = write_atomically(&directory.path().join("absent/file"), b"").unwrap_err();
    assert!(error.to_string().contains("absent/file"), "{error}");
}

#[test]
fn mode_of_an_existing_file_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for bits in [0o640, 0o600, 0o664, 0o755] {
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (bits, b"new".to_vec()));
    }
    // A new file is as one that the system creates.
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    write_atomically(&ours, b"").unwrap();
    fs::write(&theirs, "").unwrap();
    assert_eq!(mode(&ours), mode(&theirs));
}

#[test]
fn links_are_followed_and_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("data")).unwrap();
    symlink("data/file", path("link")).unwrap();
    symlink(path("link"), path("second")).unwrap();
    for text in ["one", "two"] {
        write_atomically(&path("second"), text.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(path("data/file")).unwrap(), text);
    }
    assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(path("second")).unwrap().is_symlink());
    symlink("loop", path("loop")).unwrap();
    for (bad, part) in [("loop", "does not end"), ("data", "is a directory")] {
        let error = write_atomically(&path(bad), b"").unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(bad), "{error}");
        assert!(check_writable(&path(bad)).is_err());
    }
}

#[test]
fn pipe_is_written_into_and_stays_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let (pipe, link) = (directory.path().join("pipe"), directory.path().join("link"));
    fifo(&pipe);
    symlink("pipe", &link).unwrap();
    check_writable(&link).unwrap();
    assert!(lock_output(&link, "run").unwrap().is_none());
    // More than a pipe holds, read by a reader that comes late.
    let bytes: Vec<u8> = (0..300_000u32).map(|value| value as u8).collect();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let mut read = Vec::new();
            File::open(pipe).unwrap().read_to_end(&mut read).unwrap();
            read
        }
    });
    write_atomically(&link, &bytes).unwrap();
    assert!(reader.join().unwrap() == bytes);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn descriptor_is_written_at_its_position() {
    use std::os::fd::AsRawFd;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"first ").unwrap();
    let link = directory.path().join("link");
    symlink(format!("/proc/self/fd/{}", file.as_raw_fd()), &link).unwrap();
    write_atomically(&link, b"second ").unwrap();
    write_atomically(Path::new(&format!("/dev/fd/{}", file.as_raw_fd())), b"third").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first second third");
    assert!(write_atomically(Path::new("/proc/self/fd/9999"), b"").is_err());
}

#[test]
fn output_is_locked_by_its_resolved_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    symlink("file", path("link")).unwrap();
    let held = lock_output(&path("link"), "run").unwrap();
    assert!(held.is_some());
    let error = lock_output(&path("file"), "run").unwrap_err();
    assert!(error.to_string().contains("is being written by another run"), "{error}");
    assert_eq!(error.exit_code(), 2);
    let long = "n".repeat(255);
    drop(lock_output(&path(&long), "run").unwrap().unwrap());
    drop(held);
    drop(lock_output(&path("file"), "run").unwrap().unwrap());
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["link"]);
}
