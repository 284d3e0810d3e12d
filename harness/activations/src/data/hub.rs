//! Downloads the files of a data set from the Hugging Face hub into the standard hub cache.

use std::path::PathBuf;

use hf_hub::api::sync::ApiBuilder;

/// Extensions of readable files, the most compact format first.
const READABLE_EXTENSIONS: [&str; 3] = [".parquet", ".jsonl", ".csv"];

/// The local paths of the data files of the data set `id`, sorted by name. Files that are not in the cache are
/// downloaded. The result is all files of the first readable format, because each split is a separate file.
/// `endpoint` replaces the address of the hub and all settings of the hub in the environment.
///
/// # Errors
/// The reason why no file is available, on one line and without the name of the data set.
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
    let Some(ending) = READABLE_EXTENSIONS.iter().find(|ending| names.iter().any(|name| name.ends_with(**ending)))
    else {
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
    fn unreachable_hub_gives_one_line_reason() {
        // Not an address: no request leaves the machine, not even to a proxy.
        let reason = fetch("some/data", Some("nowhere")).unwrap_err();
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}");
    }
}
