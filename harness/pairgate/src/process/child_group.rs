//! A child process in a process group of its own, which is killed with all its descendants.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};

use super::guard::{self, Guarded};
use crate::error::{Error, Result};

/// Bytes of a mebibyte.
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// A child that leads a process group; the group is killed when this is dropped before the child has ended.
#[derive(Debug)]
pub struct ChildGroup {
    process: Child,
    /// Whether the child was waited for. Its number may belong to another process from then on.
    reaped: bool,
    /// None where nothing but the kernel watches it.
    _guarded: Option<Guarded>,
}

/// How a child ended, and what it used.
#[derive(Clone, Copy, Debug)]
pub struct ChildExit {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it and the descendants that it waited for used.
    pub usage: ResourceUsage,
}

/// What a process used, from `getrusage`'s record of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResourceUsage {
    /// User and system time, in seconds.
    pub cpu_s: f64,
    /// Largest resident size, in MiB. A child inherits the resident size of the process that started it, so that a
    /// smaller child reports its parent's.
    pub peak_rss_mib: f64,
}

impl ChildGroup {
    /// Starts `command` in a process group of its own. On Linux the kernel kills the child when the thread that calls
    /// this ends.
    ///
    /// # Errors
    /// The program cannot be started; the message names `program`.
    pub fn spawn(command: &mut Command, program: &Path) -> Result<Self> {
        tie_to_parent(command);
        let process = command.spawn().map_err(Error::io("start", program))?;
        // Other systems do not know a signal of the parent's death.
        let guarded = if cfg!(target_os = "linux") { None } else { guard::watch(process.id()) };
        Ok(ChildGroup { process, reaped: false, _guarded: guarded })
    }

    /// As [`ChildGroup::spawn`], for a program that may start others: should this process be killed, the whole group dies.
    ///
    /// # Errors
    /// As [`ChildGroup::spawn`].
    pub fn spawn_guarded(command: &mut Command, program: &Path) -> Result<Self> {
        // Before the program, whose time is measured from its start on.
        guard::start();
        let mut child = Self::spawn(command, program)?;
        child._guarded = guard::watch(child.id());
        Ok(child)
    }

    /// The child's number, which is its group's as well.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The pipe to the child's standard input.
    ///
    /// # Errors
    /// It was not piped, or was taken before.
    pub fn stdin(&mut self) -> Result<ChildStdin> {
        self.process.stdin.take().ok_or_else(|| Error::internal("a child without a pipe for standard input"))
    }

    /// The pipe from the child's standard output.
    ///
    /// # Errors
    /// It was not piped, or was taken before.
    pub fn stdout(&mut self) -> Result<ChildStdout> {
        self.process.stdout.take().ok_or_else(|| Error::internal("a child without a pipe for standard output"))
    }

    /// The pipe from the child's standard error.
    ///
    /// # Errors
    /// It was not piped, or was taken before.
    pub fn stderr(&mut self) -> Result<ChildStderr> {
        self.process.stderr.take().ok_or_else(|| Error::internal("a child without a pipe for standard error"))
    }

    /// How the child ended; none while it runs, and none again after it was reported once.
    ///
    /// # Errors
    /// The operating system refuses to say.
    pub fn try_wait(&mut self) -> Result<Option<ChildExit>> {
        if self.reaped {
            return Ok(None);
        }
        if !self.has_ended() {
            return Ok(None);
        }
        // What the child left in its group ends with it. Before the child is waited for, as its number, and so the group's, may
        // be given to another process from then on.
        self.kill_group();
        let mut status = 0;
        // SAFETY: `rusage` is a plain C structure of integers, for which all zeros is a valid value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live variables of the types that the call fills.
        let waited = unsafe { libc::wait4(self.process.id() as libc::pid_t, &mut status, libc::WNOHANG, &mut usage) };
        match waited {
            0 => Ok(None),
            -1 => Err(Error::io("wait for", "the child process")(std::io::Error::last_os_error())),
            _ => {
                self.reaped = true;
                Ok(Some(ChildExit { status: ExitStatus::from_raw(status), usage: resource_usage(&usage) }))
            }
        }
    }

    /// Kills the child and all its descendants that stayed in the group, unless the child has ended.
    pub fn kill(&mut self) {
        if !self.reaped {
            self.kill_group();
            self.reaped = self.process.wait().is_ok();
        }
    }

    /// Whether the child has ended, which it can only once be waited for.
    fn has_ended(&self) -> bool {
        // SAFETY: `siginfo_t` is a plain C structure, for which all zeros is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        // SAFETY: the pointer is to a live variable of the type that the call fills.
        let waited = unsafe { libc::waitid(libc::P_PID, self.process.id() as libc::id_t, &mut info, options) };
        // SAFETY: the field of the child's number is set by every successful call, to zero where no child has ended. An error
        // is left to the call that waits.
        waited != 0 || unsafe { info.si_pid() } != 0
    }

    fn kill_group(&self) {
        // SAFETY: plain system call; the group is the child's own, and the child has not been waited for, so its number
        // cannot have been given to another process.
        unsafe { libc::kill(-(self.process.id() as libc::pid_t), libc::SIGKILL) };
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

fn resource_usage(usage: &libc::rusage) -> ResourceUsage {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    // In kilobytes on Linux, in bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };
    ResourceUsage {
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_rss_mib: usage.ru_maxrss as f64 * unit / MEBIBYTE,
    }
}

/// Gives the child a group of its own, so that the terminal's Ctrl-C reaches the parent alone, which then kills the
/// whole group; and on Linux has the kernel kill the child should the parent die first.
fn tie_to_parent(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id() as libc::pid_t;
        let tie = move || {
            // SAFETY: plain system calls that take no pointers.
            let (tied, present) =
                unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0, libc::getppid() == parent) };
            // A parent that died before the call above would never be noticed.
            if tied && present { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: between fork and exec only the async-signal-safe `prctl` and `getppid` are called, and nothing is
        // allocated.
        unsafe { command.pre_exec(tie) };
    }
}
