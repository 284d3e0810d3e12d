//! Follows redirects by hand: each hop is checked, and the access token is sent to the configured address only.

use ureq::Agent;
use ureq::http::Uri;

use super::exchange::{Break, Exchange, get};
use super::names::shown;
use super::settings::Patience;
use super::{HubError, Result, remote};

/// The largest number of redirects that are followed, as in `huggingface_hub`'s HTTP library.
const MAX_HOPS: usize = 10;

/// A response after all redirects, and the file's facts that the hub's own hops announced.
pub(super) struct Arrival {
    /// The last response.
    pub exchange: Exchange,
    /// `X-Repo-Commit`.
    pub commit: Option<String>,
    /// `X-Linked-ETag`, else the ETag of the last response.
    pub etag: Option<String>,
    /// `X-Linked-Size`.
    pub size: Option<u64>,
    /// Whether the last response came from the configured address.
    pub from_hub: bool,
}

/// A failure before the last response.
pub(super) enum Detour {
    /// The exchange failed.
    Break(Break),
    /// A redirect is refused.
    Refused(String),
}

impl From<Detour> for HubError {
    fn from(detour: Detour) -> Self {
        match detour {
            Detour::Break(failure) => failure.into(),
            Detour::Refused(reason) => HubError::Remote(reason),
        }
    }
}

/// The means of a request.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    /// The HTTP agent.
    pub agent: &'a Agent,
    /// The limits of time.
    pub patience: &'a Patience,
    /// The access token.
    pub token: Option<&'a str>,
}

/// Requests `uri`, an address of the configured hub, and follows redirects to the last response.
pub(super) fn follow(sender: Sender<'_>, uri: Uri, range: Option<&str>) -> Result<Arrival, Detour> {
    let (mut uri, mut at_hub) = (uri, true);
    let (mut commit, mut etag, mut fallback, mut size) = (None, None, None, None);
    for _ in 0..=MAX_HOPS {
        let mut headers: Vec<(&'static str, String)> = Vec::new();
        if let Some(token) = sender.token.filter(|_| at_hub) {
            headers.push(("authorization", format!("Bearer {token}")));
        }
        if let Some(range) = range {
            headers.push(("range", range.to_owned()));
        }
        let exchange = get(sender.agent, sender.patience, &uri, &headers).map_err(Detour::Break)?;
        // A header that is not text is not an absent one: it must fail the check of its value.
        let header = |name: &str| Some(String::from_utf8_lossy(exchange.headers.get(name)?.as_bytes()).into_owned());
        if at_hub {
            commit = header("x-repo-commit").or(commit);
            etag = header("x-linked-etag").or(etag);
            size = header("x-linked-size").and_then(|text| text.trim().parse().ok()).or(size);
        }
        if !matches!(exchange.status, 301 | 302 | 303 | 307 | 308) {
            let etag = etag.or_else(|| header("etag")).or(fallback);
            return Ok(Arrival { commit, etag, size, from_hub: at_hub, exchange });
        }
        if at_hub {
            fallback = header("etag").or(fallback);
        }
        let Some(location) = exchange.headers.get("location") else {
            return Err(Detour::Refused(format!("the server redirects (status {}) to nowhere", exchange.status)));
        };
        let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
        let next = target(&uri, &location).map_err(Detour::Refused)?;
        // A redirect of another host may not direct the token, not even back to the hub.
        at_hub = at_hub && origin(&next) == origin(&uri);
        uri = next;
    }
    Err(Detour::Refused(format!("the server redirects more than {MAX_HOPS} times")))
}

/// Scheme, host and port of an address.
fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The address that `location` names in a response of `base`.
fn target(base: &Uri, location: &str) -> Result<Uri, String> {
    let refused = || format!("the server redirects to {}, which is not the address of a file", shown(location));
    let (scheme, authority) = match (base.scheme_str(), base.authority()) {
        (Some(scheme), Some(authority)) => (scheme, authority),
        _ => return Err(refused()),
    };
    let location = location.trim();
    let location = location.split('#').next().unwrap_or_default();
    let has_scheme = location.split(['/', '?']).next().is_some_and(|start| start.contains(':'));
    let absolute = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.is_empty() {
        return Err(refused());
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let next: Uri = absolute.parse().map_err(|_| refused())?;
    let valid = matches!(next.scheme_str(), Some("http" | "https"))
        && next.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if !valid {
        return Err(refused());
    }
    if scheme == "https" && next.scheme_str() == Some("http") {
        return Err(format!("the server redirects from https to {}, which is not encrypted", shown(location)));
    }
    Ok(next)
}

/// The address of `path` at the configured hub.
pub(super) fn address(endpoint: &str, path: &str) -> Result<Uri> {
    match format!("{endpoint}{path}").parse::<Uri>() {
        Ok(uri)
            if matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty()) =>
        {
            Ok(uri)
        }
        _ => remote(format!("HF_ENDPOINT is {}, which is not an address like https://huggingface.co", shown(endpoint))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_resolved_or_refused() {
        let base: Uri = "https://hub:8443/a/b/c".parse().unwrap();
        let resolved = |location: &str| target(&base, location).map(|uri| uri.to_string());
        assert_eq!(resolved("/x?y=1").unwrap(), "https://hub:8443/x?y=1");
        assert_eq!(resolved("d/e").unwrap(), "https://hub:8443/a/b/d/e");
        assert_eq!(resolved("//cdn/x").unwrap(), "https://cdn/x");
        assert_eq!(resolved("HTTPS://cdn/x").unwrap(), "https://cdn/x");
        for hostile in [
            "file:///etc/passwd",
            "ftp://x/y",
            "javascript:x",
            "http://hub:8443/x",
            "https://user@cdn/x",
            "",
            "https://",
            "a b",
        ] {
            assert!(resolved(hostile).is_err(), "{hostile}: {:?}", resolved(hostile));
        }
    }
}
