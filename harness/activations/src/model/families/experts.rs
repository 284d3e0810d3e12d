//! The keys of a mixture of experts.

use actbench_kernels::{MAX_EXPERTS, RouteRule};
use serde_json::Value;

use super::entries::Entries;
use crate::model::spec::ExpertsSpec;
use crate::python_json::describe;

/// The keys of the number of experts: Mixtral's, and that of most other families. transformers 5.24 reads either.
const COUNTS: [&str; 2] = ["num_local_experts", "num_experts"];

/// Reads the number of experts, which can be 0 only if `may_be_zero`, and the experts of a token, `top_k` where the key is missing.
///
/// # Errors
/// No number of experts, two different ones, more than are supported, or an impossible number of experts of a token.
pub(super) fn read(
    entries: &Entries<'_>,
    intermediate_size: usize,
    top_k: usize,
    renormalize: bool,
    rounded: bool,
    may_be_zero: bool,
) -> Result<Option<ExpertsSpec>, String> {
    let n = count(entries)?;
    if n == 0 && may_be_zero {
        return Ok(None);
    }
    if n == 0 || n > MAX_EXPERTS {
        return Err(format!("the number of experts is {n}, it must be between 1 and {MAX_EXPERTS}"));
    }
    let top_k = entries.count("num_experts_per_tok", top_k)?;
    if top_k == 0 || top_k > n {
        return Err(format!("num_experts_per_tok is {top_k}, it must be between 1 and the number of experts, {n}"));
    }
    Ok(Some(ExpertsSpec { n, intermediate_size, rule: RouteRule { top_k, renormalize, rounded } }))
}

fn count(entries: &Entries<'_>) -> Result<usize, String> {
    let given: Vec<&str> = COUNTS.into_iter().filter(|key| entries.map.contains_key(*key)).collect();
    let counts = given.iter().map(|key| entries.count(key, 0)).collect::<Result<Vec<usize>, String>>()?;
    match counts[..] {
        [] => Err(format!("has no {}; download the file again", COUNTS.join(" or "))),
        [n] => Ok(n),
        [first, second, ..] if first == second => Ok(first),
        [first, second, ..] => Err(format!("{} is {first} and {} is {second}", COUNTS[0], COUNTS[1])),
    }
}

/// Whether each layer has experts: every `step`-th, but for those that `mlp_only_layers` lists.
///
/// # Errors
/// A list of anything but numbers, or a step of 0.
pub(super) fn layers(entries: &Entries<'_>, n_layers: usize) -> Result<Vec<bool>, String> {
    let step = entries.count("decoder_sparse_step", 1)?;
    if step == 0 {
        return Err("decoder_sparse_step is 0, it must be positive".to_owned());
    }
    let dense: Vec<u64> = match entries.given("mlp_only_layers") {
        None => Vec::new(),
        Some(list) => {
            let numbers = list.as_array().and_then(|list| list.iter().map(Value::as_u64).collect());
            numbers.ok_or_else(|| format!("mlp_only_layers is {}, expected a list of layers", describe(list)))?
        }
    };
    Ok((0..n_layers).map(|layer| (layer + 1).is_multiple_of(step) && !dense.contains(&(layer as u64))).collect())
}
