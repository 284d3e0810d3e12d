//! `actbench worker`: one case, read from standard input, reported on standard output. Started by `actbench run`.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::error::{Error, Result};
use crate::measure::memory::{Baseline, Peaks, begin, peaks};
use crate::runner::protocol::{Failure, Line, Message, VERSION};
use crate::workload::case::{CaseObserver, CaseOutcome, CaseSpec, Fault, Phase};
use crate::workload::run_case;

/// Progress is told at most this often, so that telling it costs nothing.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the command. What happens is told in messages; the exit status only repeats it.
pub fn worker() -> ExitCode {
    let reporter = Arc::new(Reporter { state: Mutex::new(State::default()) });
    match work(&reporter) {
        Ok((outcome, peaks, fault)) => {
            say(Message::Done { outcome, peaks });
            if fault == Some(Fault::Linger) {
                sleep_for_ever();
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(Message::Failed(Failure::from(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}

fn work(reporter: &Arc<Reporter>) -> Result<(CaseOutcome, Peaks, Option<Fault>)> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Error::io("read", "the standard input"))?;
    let spec: CaseSpec =
        serde_json::from_str(&text).map_err(|error| Error::usage(format!("this is no case: {error}")))?;
    if let Some(fault) = spec.fault {
        act_out(fault)?;
    }
    let observer: Arc<dyn CaseObserver> = reporter.clone();
    let mut outcome = run_case(&spec, &observer)?;
    if spec.fault == Some(Fault::Disagree) {
        outcome.extra.insert("feature_digest".to_owned(), json!("0000"));
    }
    let state = reporter.state.lock().unwrap_or_else(PoisonError::into_inner);
    let peaks = state.peaks.ok_or_else(|| Error::Disagreement("the case ended without being measured".to_owned()))?;
    Ok((outcome, peaks, spec.fault))
}

/// Fails as told, for the tests of the runner.
fn act_out(fault: Fault) -> Result<()> {
    match fault {
        Fault::Sleep => sleep_for_ever(),
        Fault::Kill => {
            // SAFETY: a plain system call on this very process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            Ok(())
        }
        Fault::Allocate => {
            // As large as an allocation can be; the allocator refuses and the standard library ends the process.
            let block: Vec<u8> = Vec::with_capacity(isize::MAX as usize);
            Err(Error::OutOfMemory { what: "a fault".to_owned(), bytes: block.capacity() as u64 })
        }
        Fault::Exit => {
            eprintln!("leaving without a result");
            std::process::exit(3)
        }
        Fault::Abort => {
            eprintln!("leaving by abort");
            std::process::abort()
        }
        #[allow(clippy::panic)] // What is acted out.
        Fault::Panic => panic!("acted out"),
        #[allow(clippy::print_stdout)] // The channel of messages itself is spoilt.
        Fault::Garbage => {
            println!("this is no message");
            std::process::exit(0)
        }
        Fault::Flood => loop {
            std::io::stdout().write_all(&[b'x'; 4096]).map_err(Error::io("write", "the standard output"))?;
        },
        Fault::Error => Err(Error::Numeric("acted out".to_owned())),
        Fault::Input => Err(Error::input("acted out", "bad input")),
        Fault::Linger | Fault::Disagree => Ok(()),
    }
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Tells the parent what happens, and measures between the two marks.
struct Reporter {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_progress: Option<Instant>,
    baseline: Option<Baseline>,
    peaks: Option<Peaks>,
}

impl CaseObserver for Reporter {
    fn phase(&self, phase: Phase) {
        say(Message::Phase { phase });
    }

    fn progress(&self, done: u64, total: u64, unit: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if done < total && state.last_progress.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        state.last_progress = Some(Instant::now());
        say(Message::Progress { done, total, unit: unit.to_owned() });
    }

    fn loaded(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).baseline = Some(begin());
    }

    fn measured(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.peaks = state.baseline.map(peaks);
    }
}

/// One line on standard output. A parent that has gone away is no reason to fail: the kernel ends this process then.
fn say(message: Message) {
    if let Ok(text) = serde_json::to_string(&Line { v: VERSION, message }) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
