//! Writes into devices, pipes and open descriptors, which can take as long as their reader likes: an interrupt ends the wait.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::process::interrupt;

/// Interval at which an interrupt is noticed while no process reads.
const POLL: Duration = Duration::from_millis(50);

/// Opens the device or pipe at `path` and writes `bytes`. A pipe without a reader is waited for.
pub fn write_into(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_pipe = std::fs::metadata(path)?.file_type().is_fifo();
    let file = loop {
        // Never created: a device that has vanished must not become a file.
        match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
            Err(error) if is_pipe && error.raw_os_error() == Some(libc::ENXIO) => {
                check_interrupt()?;
                thread::sleep(POLL);
            }
            opened => break opened?,
        }
    };
    write_all(&file, bytes)
}

/// Writes `bytes` to the open descriptor `number`, at its own position.
pub fn write_to_descriptor(number: i32, bytes: &[u8]) -> io::Result<()> {
    // Earlier lines that are still in the buffer of standard output come first.
    io::stdout().lock().flush()?;
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: borrowed only to be duplicated, which is an error for a number that is not open.
    let duplicate = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
    match write_all(&File::from(duplicate), bytes) {
        // As for everything else on standard output: a reader that has left is not a failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe && number == 1 => Ok(()),
        written => written,
    }
}

fn write_all(mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                check_interrupt()?;
                wait_writable(file);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_writable(file: &File) {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one live structure, as its count says. The result does not matter: the next write reports what happened.
    unsafe { libc::poll(&mut poll, 1, POLL.as_millis() as libc::c_int) };
}

fn check_interrupt() -> io::Result<()> {
    if interrupt::requested() { Err(io::Error::other(Interrupted)) } else { Ok(()) }
}

/// The user asked to stop while a stream was waited for.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;
