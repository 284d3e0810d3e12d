//! Reads what a child writes without trusting it to be short, to be text, or to end.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// The longest line that can be a message. A result is a few kB; a sweep of a hundred layers a few more.
const LONGEST_LINE: u64 = 1 << 20;

/// How much of a child's standard error is kept.
const KEPT: usize = 64 << 10;

/// The lines of `stream`, as they come, from a thread of its own. A longer line than any message is cut there and is
/// the last.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line);
            if !matches!(read, Ok(read) if read > 0) {
                break;
            }
            // What is no text is passed on as what can be read of it, and refused by the parser.
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let cut = line.len() as u64 == LONGEST_LINE && !line.ends_with(b"\n");
            if sender.send(text).is_err() || cut {
                break;
            }
        }
    });
    receiver
}

/// The longest output that is kept whole.
const LONGEST_OUTPUT: u64 = 64 << 20;

/// All of `stream`, up to 64 MiB, sent once it ends; the rest is read and dropped, so that its writer can end.
pub fn whole(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        // What could be read is what there is, whether the stream ended well or not.
        let _ = (&mut stream).take(LONGEST_OUTPUT).read_to_end(&mut kept);
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
            let excess = kept.len().saturating_sub(KEPT);
            kept.drain(..excess);
        }
        // Nobody may be waiting for it any more.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, repeat};

    use super::*;

    #[test]
    fn lines_come_one_by_one_and_need_not_be_text() {
        let received: Vec<String> = lines(Cursor::new(b"one\ntw\xffo\n\nlast".to_vec())).iter().collect();
        assert_eq!(received, ["one", "tw\u{fffd}o", "", "last"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_is_the_last() {
        let received: Vec<String> = lines(Cursor::new(b"first\n".to_vec()).chain(repeat(b'x'))).iter().collect();
        assert_eq!(received.len(), 2);
        assert_eq!(received[1].len() as u64, LONGEST_LINE);
    }

    #[test]
    fn the_end_of_a_long_stream_is_kept() {
        let text: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
        let kept = tail(Cursor::new(text.clone().into_bytes())).recv().unwrap();
        assert_eq!(kept.len(), KEPT);
        assert!(text.ends_with(&kept));
    }
}
