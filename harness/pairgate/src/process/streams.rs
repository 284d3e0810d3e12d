//! Reads the output of a child without trusting it to be short, to be text, or to end.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// The longest line that can be a message, in bytes. A result is a few kB; a sweep of a hundred layers a few more.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// How much of the end of standard error is kept.
const TAIL_BYTES: usize = 64 << 10;

/// The lines of `stream`, as they come, from a thread of its own. A line longer than that is cut and is
/// the last.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            if !matches!(read, Ok(read) if read > 0) {
                break;
            }
            // Bytes that are not text are replaced; the parser then refuses the line.
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let cut = line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n");
            if sender.send(text).is_err() || cut {
                break;
            }
        }
    });
    receiver
}

/// The longest output that is kept whole.
const MAX_OUTPUT_BYTES: u64 = 64 << 20;

/// All of `stream`, up to 64 MiB, sent once it ends; the rest is read and dropped, so that its writer can end.
pub fn whole(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        // A read error ends the output as an end of the stream does.
        let _ = (&mut stream).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
}

/// The last 64 kB of `stream`, sent once it ends.
pub fn tail(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
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
        // The receiver may be gone.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, repeat};

    use super::*;

    #[test]
    fn invalid_utf8_lines_are_passed_on() {
        let received: Vec<String> = lines(Cursor::new(b"one\ntw\xffo\n\nlast".to_vec())).iter().collect();
        assert_eq!(received, ["one", "tw\u{fffd}o", "", "last"]);
    }

    #[test]
    fn endless_line_is_cut_and_ends_the_stream() {
        let received: Vec<String> = lines(Cursor::new(b"first\n".to_vec()).chain(repeat(b'x'))).iter().collect();
        assert_eq!(received.len(), 2);
        assert_eq!(received[1].len() as u64, MAX_LINE_BYTES);
    }

    #[test]
    fn tail_of_a_long_stream_is_kept() {
        let text: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
        let kept = tail(Cursor::new(text.clone().into_bytes())).recv().unwrap();
        assert_eq!(kept.len(), TAIL_BYTES);
        assert!(text.ends_with(&kept));
    }
}
