//! The client: address, token, limits, and requests that are tried again where that can help.

use std::time::{Duration, Instant};

use ureq::Agent;

use super::exchange::{self, Break};
use super::redirects::{Arrival, Detour, Sender, address, follow};
use super::settings::{HubSettings, Patience};
use super::{Repo, Result, interrupt, remote, status};
use crate::error::Error;

/// The public hub.
const PUBLIC: &str = "https://huggingface.co";

/// Tries of a request whose connection ends or that the server cannot answer at the moment.
const TRIES: u32 = 3;

/// The longest `Retry-After` that is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A connection to one hub.
pub(crate) struct Client {
    endpoint: String,
    token: Option<String>,
    patience: Patience,
    agent: Agent,
    pub(super) quiet: bool,
}

impl Client {
    /// A client for `settings`; nothing is sent yet. `quiet` hides progress.
    ///
    /// # Errors
    /// The network must not be used, or the token cannot be sent.
    pub(crate) fn new(settings: &HubSettings, quiet: bool) -> Result<Client> {
        if settings.offline {
            return remote("HF_HUB_OFFLINE forbids downloads");
        }
        if let Some(token) = &settings.token
            && !token.value.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return remote(format!(
                "the access token in {} has spaces or characters that no request can carry: copy the token again",
                token.origin
            ));
        }
        Ok(Client {
            endpoint: settings.endpoint.clone().unwrap_or_else(|| PUBLIC.to_owned()),
            token: settings.token.as_ref().map(|token| token.value.clone()),
            patience: settings.patience,
            agent: exchange::agent(&settings.patience),
            quiet,
        })
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// The address for messages.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Requests `path` of the hub. The response has the status 200, 206, 404 or 416; others are errors.
    pub(super) fn request(&self, repo: &Repo, path: &str, range: Option<&str>) -> Result<Arrival> {
        let uri = address(&self.endpoint, path)?;
        let sender = Sender { agent: &self.agent, patience: &self.patience, token: self.token.as_deref() };
        let mut attempt = 1;
        loop {
            let pause = self.patience.pause * (1 << (attempt - 1));
            let last = attempt >= TRIES;
            match follow(sender, uri.clone(), range) {
                Ok(arrival) if matches!(arrival.exchange.status, 200 | 206 | 404 | 416) => return Ok(arrival),
                Ok(arrival) => {
                    let wait = status::wait(&arrival.exchange);
                    if last
                        || !status::is_temporary(arrival.exchange.status)
                        || wait.is_some_and(|wait| wait > LONGEST_WAIT)
                    {
                        return remote(status::explain(&arrival.exchange, repo, self.token.is_some()));
                    }
                    self.pause(wait.unwrap_or(pause))?;
                }
                Err(Detour::Break(Break::Cut(_))) if !last => self.pause(pause)?,
                Err(detour) => return Err(detour.into()),
            }
            attempt += 1;
        }
    }

    /// Waits, unless the user asks to stop.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            if interrupt::requested() {
                return Err(Error::Interrupted.into());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}
