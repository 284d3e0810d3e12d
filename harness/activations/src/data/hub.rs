//! Fetches a data set's file from the Hugging Face hub into its usual cache.

use std::path::PathBuf;

use hf_hub::api::sync::ApiBuilder;

/// Endings of files that can be read here, the most compact first.
const READABLE: [&str; 3] = [".parquet", ".jsonl", ".csv"];

/// The local paths of the data files of the data set `id`, by name, downloaded unless the cache has them: all files of
/// the first readable kind, since splits come as files of their own. `endpoint` replaces the hub's address, and with it
/// everything the environment says about the hub.
///
/// # Errors
/// Why there is no file, in a few words without the data set's name.
pub(super) fn fetch(id: &str, endpoint: Option<&str>) -> Result<Vec<PathBuf>, String> {
    let builder = match endpoint {
        Some(endpoint) => ApiBuilder::new().with_token(None).with_endpoint(endpoint.to_owned()),
        None => ApiBuilder::from_env(),
    };
    let api = builder.with_progress(false).build().map_err(|error| one_line(&error))?;
    let data_set = api.dataset(id.to_owned());
    let mut names: Vec<String> =
        data_set.info().map_err(|error| one_line(&error))?.siblings.into_iter().map(|file| file.rfilename).collect();
    names.sort();
    let Some(ending) = READABLE.iter().find(|ending| names.iter().any(|name| name.ends_with(**ending))) else {
        return Err("it has no .parquet, .jsonl or .csv file".to_owned());
    };
    let chosen = names.iter().filter(|name| name.ends_with(ending));
    chosen.map(|name| data_set.get(name).map_err(|error| one_line(&error))).collect()
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_out_of_reach_is_a_reason_of_one_line() {
        // No address at all, so that nothing is sent, not even to a proxy.
        let reason = fetch("some/data", Some("nowhere")).unwrap_err();
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}");
    }
}
