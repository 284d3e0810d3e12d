//! Log lines on standard error: `warning: ...` without a time, so that they look like the other messages, and each
//! warning once.

use std::fmt;
use std::io;

use pairgate::console;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging to standard error: warnings, or the levels that the variable `ACTBENCH_LOG` selects.
pub fn start() {
    let filter = EnvFilter::try_from_env("ACTBENCH_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| ConsoleLine).event_format(PlainLines);
    // A program that uses this crate as a library may have a subscriber of its own, which stays.
    let _ = lines.try_init();
}

/// Writes what the subscriber hands over, which is one line in one call, and never fails: the subscriber would report a
/// failure by `eprintln!`, which panics.
struct ConsoleLine;

impl io::Write for ConsoleLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        console::error_line(String::from_utf8_lossy(line).trim_end_matches('\n'));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `level: message fields`.
struct PlainLines;

impl<S, N> FormatEvent<S, N> for PlainLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(writer, "{level}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
