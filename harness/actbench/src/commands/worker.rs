//! `actbench worker`: runs one case, read from standard input, and reports it on standard output. Started by `actbench run`.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::case::{CaseObserver, CaseOutcome, CaseSpec, Fault, Phase};
use crate::error::{Error, Result};
use crate::measure::memory::{Baseline, Peaks, begin, peaks};
use crate::measure::process_start::seconds_since_start;
use crate::runner::protocol::{Failure, Line, Message, VERSION};
use crate::workload::run_case;
use pairgate::{stderr_line, stdout_line};

/// Minimum interval between progress messages, so that their cost is negligible.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the command. The messages have the result; the exit status only repeats it.
pub fn worker() -> ExitCode {
    let start_s = seconds_since_start();
    let reporter = Arc::new(Reporter { state: Mutex::new(ReporterState::default()) });
    match work(&reporter, start_s) {
        Ok((outcome, peaks, fault)) => {
            send(Message::Done { outcome: Box::new(outcome), peaks });
            if fault == Some(Fault::Linger) {
                sleep_forever();
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            send(Message::Failed(Failure::from(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs the case of standard input. `start_s` are the seconds from the start of the process to that of the command.
fn work(reporter: &Arc<Reporter>, start_s: Option<f64>) -> Result<(CaseOutcome, Peaks, Option<Fault>)> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Error::io("read", "the standard input"))?;
    let spec: CaseSpec = serde_json::from_str(&text)
        .map_err(|error| Error::usage(format!("the standard input is not a case: {error}")))?;
    if let Some(fault) = spec.fault {
        inject(fault)?;
    }
    let observer: Arc<dyn CaseObserver> = reporter.clone();
    let mut outcome = run_case(&spec, &observer)?;
    if let Some(phases) = &mut outcome.metrics.phases {
        phases.start_s = start_s;
    }
    if spec.fault == Some(Fault::Disagree) {
        outcome.metrics.feature_digest = Some("0000".to_owned());
    }
    let state = reporter.state.lock().unwrap_or_else(PoisonError::into_inner);
    let peaks = state.peaks.ok_or_else(|| Error::internal("the case completed without a measurement"))?;
    Ok((outcome, peaks, spec.fault))
}

/// Injects a failure, for the tests of the runner.
fn inject(fault: Fault) -> Result<()> {
    match fault {
        Fault::Sleep => sleep_forever(),
        Fault::Kill => {
            // SAFETY: a plain system call on this very process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            Ok(())
        }
        Fault::Allocate => {
            // The largest possible size: the allocator refuses it, and the standard library aborts the process.
            let block: Vec<u8> = Vec::with_capacity(isize::MAX as usize);
            Err(Error::OutOfMemory { what: "the injected allocation".to_owned(), bytes: block.capacity() as u64 })
        }
        Fault::Exit => {
            stderr_line!("exiting without a result");
            std::process::exit(3)
        }
        Fault::Abort => {
            stderr_line!("aborting");
            std::process::abort()
        }
        #[allow(clippy::panic)] // The injected failure.
        Fault::Panic => panic!("injected panic"),
        Fault::Garbage => {
            stdout_line!("this is not a message");
            std::process::exit(0)
        }
        Fault::Flood => loop {
            std::io::stdout().write_all(&[b'x'; 4096]).map_err(Error::io("write", "the standard output"))?;
        },
        Fault::Error => Err(Error::Numeric("injected error".to_owned())),
        Fault::Input => Err(Error::input("injected input", "bad input")),
        Fault::Linger | Fault::Disagree => Ok(()),
    }
}

fn sleep_forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Sends messages to the parent, and measures from the end of loading to the end of the measured part.
struct Reporter {
    state: Mutex<ReporterState>,
}

#[derive(Default)]
struct ReporterState {
    last_progress: Option<Instant>,
    baseline: Option<Baseline>,
    peaks: Option<Peaks>,
}

impl CaseObserver for Reporter {
    fn phase(&self, phase: Phase) {
        send(Message::Phase { phase });
    }

    fn progress(&self, done: u64, total: u64, unit: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if done < total && state.last_progress.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        state.last_progress = Some(Instant::now());
        send(Message::Progress { done, total, unit: unit.to_owned() });
    }

    fn loaded(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).baseline = Some(begin());
    }

    fn measured(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped with its sampler, which is not needed any more.
        state.peaks = state.baseline.take().as_ref().map(peaks);
        send(Message::Measured);
    }
}

/// Writes one line to standard output. Errors are ignored: if the parent has died, the kernel kills this process.
fn send(message: Message) {
    if let Ok(text) = serde_json::to_string(&Line { v: VERSION, message }) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
