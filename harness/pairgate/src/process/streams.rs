//! Reads the output of a child process, which may be endless or invalid UTF-8.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};

use super::threads;
use crate::error::Result;

/// Maximum length of a message in bytes. A result takes a few KiB, also that of a sweep of a hundred layers.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Bytes of the standard error that are kept.
const TAIL_BYTES: usize = 64 << 10;

/// The lines of `stream` as they arrive, read by a thread. A line longer than [`MAX_LINE_BYTES`] is truncated and is the
/// last one.
///
/// # Errors
/// The system permits no further thread.
pub fn lines(stream: impl Read + Send + 'static) -> Result<Receiver<String>> {
    let (sender, receiver) = channel();
    threads::start(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            if !matches!(read, Ok(read) if read > 0) {
                break;
            }
            // Invalid UTF-8 is replaced; the parser then rejects the line.
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let cut = line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n");
            if sender.send(text).is_err() || cut {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// Bytes of the standard output that are kept.
const MAX_OUTPUT_BYTES: u64 = 64 << 20;

/// The first 64 MiB of `stream`, sent once it ends. The rest is read and discarded, so that the writer is not blocked.
///
/// # Errors
/// The system permits no further thread.
pub fn whole(mut stream: impl Read + Send + 'static) -> Result<Receiver<String>> {
    let (sender, receiver) = channel();
    threads::start(move || {
        let mut kept = Vec::new();
        // A read error ends the output like an end of file does.
        let _ = (&mut stream).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    })?;
    Ok(receiver)
}

/// The last 64 KiB of `stream`, sent once it ends.
///
/// # Errors
/// The system permits no further thread.
pub fn tail(mut stream: impl Read + Send + 'static) -> Result<Receiver<String>> {
    let (sender, receiver) = channel();
    threads::start(move || {
        let mut kept = Vec::new();
        let mut chunk = [0u8; 4096];
        while let Ok(read) = stream.read(&mut chunk) {
            if read == 0 {
                break;
            }
            kept.extend_from_slice(&chunk[..read]);
            let excess = kept.len().saturating_sub(TAIL_BYTES);
            kept.drain(..excess);
        }
        // The receiver may be gone after a timeout.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, repeat};

    use super::*;

    #[test]
    fn invalid_utf8_lines_are_received() {
        let received: Vec<String> = lines(Cursor::new(b"one\ntw\xffo\n\nlast".to_vec())).unwrap().iter().collect();
        assert_eq!(received, ["one", "tw\u{fffd}o", "", "last"]);
    }

    #[test]
    fn endless_line_is_truncated_and_last() {
        let received: Vec<String> =
            lines(Cursor::new(b"first\n".to_vec()).chain(repeat(b'x'))).unwrap().iter().collect();
        assert_eq!(received.len(), 2);
        assert_eq!(received[1].len() as u64, MAX_LINE_BYTES);
    }

    #[test]
    fn end_of_long_stream_is_kept() {
        let text: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
        let kept = tail(Cursor::new(text.clone().into_bytes())).unwrap().recv().unwrap();
        assert_eq!(kept.len(), TAIL_BYTES);
        assert!(text.ends_with(&kept));
    }
}
