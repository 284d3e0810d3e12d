//! One HTTP request and its response, with limits on silence and a check for interrupts.
//!
//! The request runs on a thread of its own, because a system call that waits for a server cannot look for interrupts. The
//! thread ends by the same limits at the latest.

use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Request, Uri};
use ureq::{Agent, Error as HttpError, Timeout};

use super::settings::Patience;
use super::{HubError, interrupt};
use crate::error::Error;

/// Bytes of a block of a body.
const BLOCK: usize = 128 << 10;

/// The interval of checks for interrupts.
const POLL: Duration = Duration::from_millis(100);

/// A body slower than [`SLOWEST`] bytes in this time counts as silent.
const SPEED_WINDOW: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 4096;

/// A failure of an exchange.
#[derive(Debug)]
pub(super) enum Break {
    /// The connection ended early: another try may succeed.
    Cut(String),
    /// The server stopped sending within the time limit.
    Silent(String),
    /// The server cannot be reached at all.
    Unreachable(String),
    /// The user asked to stop.
    Interrupted,
}

impl From<Break> for HubError {
    fn from(failure: Break) -> Self {
        match failure {
            Break::Cut(reason) | Break::Silent(reason) | Break::Unreachable(reason) => {
                HubError::Remote(unreachable(&reason))
            }
            Break::Interrupted => HubError::Local(Error::Interrupted),
        }
    }
}

/// The message for a network that does not work.
pub(super) fn unreachable(reason: &str) -> String {
    format!("the hub could not be reached ({reason}): check the network")
}

enum Event {
    Head(u16, HeaderMap),
    Block(Vec<u8>),
    Failed(Break),
}

/// A response whose head has arrived.
pub(super) struct Exchange {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    events: Receiver<Event>,
    silence: Duration,
    window_start: Instant,
    window_bytes: u64,
}

/// An agent that follows no redirects and takes every status as a response.
pub(super) fn agent(patience: &Patience) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_send_request(Some(patience.response))
        .timeout_recv_response(Some(patience.response))
        .timeout_per_read(Some(patience.silence.max(patience.response)))
        .accept_encoding("identity")
        .user_agent(concat!("actbench/", env!("CARGO_PKG_VERSION")));
    config.build().new_agent()
}

/// Sends a GET request and waits for the head of the response.
pub(super) fn get(
    agent: &Agent,
    patience: &Patience,
    uri: &Uri,
    headers: &[(&'static str, String)],
) -> Result<Exchange, Break> {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request =
        request.body(()).map_err(|_| Break::Unreachable(format!("the request for {uri} has an invalid header")))?;
    let (sender, events) = sync_channel(8);
    let agent = agent.clone();
    std::thread::Builder::new()
        .name("hub".to_owned())
        .spawn(move || exchange(&agent, request, &sender))
        .map_err(|error| Break::Unreachable(format!("no thread for the request: {error}")))?;
    // The agent's own limits end the request; this one only bounds their sum.
    let deadline = Instant::now() + patience.connect * 3 + patience.response * 2;
    match next_event(&events, deadline)? {
        Some(Event::Head(status, headers)) => Ok(Exchange {
            status,
            headers,
            events,
            silence: patience.silence,
            window_start: Instant::now(),
            window_bytes: 0,
        }),
        Some(Event::Failed(failure)) => Err(failure),
        _ => Err(Break::Cut("the connection ended before the response".to_owned())),
    }
}

impl Exchange {
    /// The header `name`; none if it is missing or not text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next bytes of the body; none at its end.
    pub(super) fn next_block(&mut self) -> Result<Option<Vec<u8>>, Break> {
        let deadline = Instant::now() + self.silence;
        match next_event(&self.events, deadline)? {
            Some(Event::Block(block)) => {
                self.window_bytes += block.len() as u64;
                if self.window_start.elapsed() > SPEED_WINDOW {
                    if self.window_bytes < SLOWEST {
                        return Err(Break::Silent(format!("less than {SLOWEST} bytes arrived in a minute")));
                    }
                    (self.window_start, self.window_bytes) = (Instant::now(), 0);
                }
                Ok(Some(block))
            }
            Some(Event::Failed(failure)) => Err(failure),
            Some(Event::Head(..)) | None => Ok(None),
        }
    }
}

/// The next event before `deadline`; none after the last.
fn next_event(events: &Receiver<Event>, deadline: Instant) -> Result<Option<Event>, Break> {
    let start = Instant::now();
    loop {
        match events.recv_timeout(POLL) {
            Ok(event) => return Ok(Some(event)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt::requested() {
            return Err(Break::Interrupted);
        }
        if Instant::now() >= deadline {
            return Err(Break::Silent(format!("no answer within {} s", start.elapsed().as_secs().max(1))));
        }
    }
}

/// The thread's body: the request, then the blocks of the response.
fn exchange(agent: &Agent, request: Request<()>, events: &SyncSender<Event>) {
    let response = match agent.run(request) {
        Ok(response) => response,
        Err(error) => {
            let _ = events.send(Event::Failed(explain(&error)));
            return;
        }
    };
    let (head, body) = response.into_parts();
    if events.send(Event::Head(head.status.as_u16(), head.headers)).is_err() {
        return;
    }
    let mut reader = body.into_with_config().limit(u64::MAX).reader();
    let mut block = vec![0; BLOCK];
    loop {
        match reader.read(&mut block) {
            Ok(0) => return,
            Ok(n) => {
                if events.send(Event::Block(block[..n].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let _ = events.send(Event::Failed(Break::Cut(one_line(&error))));
                return;
            }
        }
    }
}

fn explain(error: &HttpError) -> Break {
    match error {
        HttpError::Timeout(Timeout::Connect | Timeout::Resolve) => {
            Break::Unreachable("no connection within the time limit".to_owned())
        }
        HttpError::Timeout(_) => Break::Silent("no answer within the time limit".to_owned()),
        HttpError::HostNotFound => Break::Unreachable("the host name is unknown".to_owned()),
        HttpError::Io(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
            Break::Cut(one_line(error))
        }
        other => Break::Unreachable(one_line(other)),
    }
}

/// The text of an error on one line of limited length.
fn one_line(error: &dyn std::fmt::Display) -> String {
    let text: String = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
