//! What a status of the hub means, for people.

use std::time::Duration;

use super::Repo;
use super::exchange::Exchange;

/// Whether the same request may succeed in a moment.
pub(super) fn is_temporary(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// The time that the server asks to wait; none if it names no number of seconds.
pub(super) fn wait(exchange: &Exchange) -> Option<Duration> {
    exchange.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
}

/// The failure as the second half of a sentence about the repository.
pub(super) fn explain(exchange: &Exchange, repo: &Repo, has_token: bool) -> String {
    let noun = repo.kind.noun();
    match exchange.status {
        401 if has_token => format!(
            "the hub has no such {noun}, or it refuses the access token (status 401): check HF_TOKEN and its permissions"
        ),
        401 => format!("the hub has no such {noun}, or it needs an access token (set HF_TOKEN)"),
        403 if has_token => format!(
            "the hub refuses access (status 403): ask for access on the page of the {noun}, or use an access token (HF_TOKEN) \
             that has it"
        ),
        403 => format!(
            "the hub refuses access (status 403): the {noun} needs an access token (set HF_TOKEN), and perhaps a request on its \
             page"
        ),
        429 => match wait(exchange) {
            Some(time) => {
                format!("the hub limits the rate of requests (status 429): try again in {} s", time.as_secs())
            }
            None => "the hub limits the rate of requests (status 429): try again later".to_owned(),
        },
        status @ 500..=599 => format!("the hub has a server error (status {status}): try again later"),
        status => format!("the hub answers with status {status}, which no hub should: check HF_ENDPOINT"),
    }
}
