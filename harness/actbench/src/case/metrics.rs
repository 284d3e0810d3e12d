//! The metrics of a case beyond times and peaks: the object `extra` of a row of the result file.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{CasePhases, ProbeSolver};

/// The metrics of a case beyond times and peaks.
///
/// Fields are declared in the order of the file. An absent key is `None` and stays absent. A key that may be null is a
/// nested `Option`: `Some(None)` is null. Keys of other versions are kept in [`CaseMetrics::unknown`] and written last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaseMetrics {
    /// Training samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_train: Option<u64>,
    /// Test samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_test: Option<u64>,
    /// Test samples with label 1: with `n_test`, the pairs that AUROC counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_test_positive: Option<u64>,
    /// Name of the pooling method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Name of the token mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Name of the storage type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Solver of the probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver: Option<ProbeSolver>,
    /// Optimizer rules that the settings disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_opt: Option<Vec<String>>,
    /// Layer of the task `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<u64>,
    /// Layers of the task `sweep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_layers: Option<u64>,
    /// Values of C of the task `sweep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cs: Option<Vec<f64>>,
    /// Probes of the task `sweep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_trials: Option<u64>,
    /// AUROC of each probe of the task `sweep`, `[layers, cs]`; null is a value that was not finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aurocs: Option<Vec<Vec<Option<f64>>>>,
    /// Layer of the probe with the highest AUROC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_layer: Option<u64>,
    /// C of the probe with the highest AUROC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_c: Option<f64>,
    /// The highest AUROC; null if it was not finite.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub best_auroc: Option<Option<f64>>,
    /// Digest of the features the probes were trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_digest: Option<String>,
    /// Tokens of all samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_total: Option<u64>,
    /// Tokens that the model computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_computed: Option<u64>,
    /// Batches that the model ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<u64>,
    /// Floating-point operations of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flops: Option<u64>,
    /// Times a batch was halved because the device ran out of memory; absent if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches_halved: Option<u64>,
    /// Bytes of the cache files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// CPU time in seconds of all threads in the measured part; null where the system does not count it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub cpu_s: Option<Option<f64>>,
    /// Seconds of releasing the model. They are part of the measurement on the CPU, where the probes get its memory, and follow
    /// the measurement on a GPU, where they are the driver's teardown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_s: Option<f64>,
    /// Seconds of all phases of the case's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phases: Option<CasePhases>,
    /// Whether the features went through a cache file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lazy_cache_disk: Option<bool>,
    /// Description of the model and its device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Bytes uploaded to the GPUs in the measured part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_to_device_bytes: Option<u64>,
    /// Bytes downloaded from the GPUs in the measured part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_to_host_bytes: Option<u64>,
    /// Bytes uploaded to the GPUs during loading; null if they were not counted.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub load_host_to_device_bytes: Option<Option<u64>>,
    /// Peak of anonymous and shared memory in MiB, which mapped files are not part of; null where the system does not report
    /// it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub peak_anonymous_mb: Option<Option<f64>>,
    /// Anonymous resident memory at the end in MiB; null where the system does not report it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub rss_anonymous_mb: Option<Option<f64>>,
    /// File-backed resident memory at the end in MiB; null where the system does not report it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub rss_file_mb: Option<Option<f64>>,
    /// Peak resident memory of loading in MiB; null where the system does not report it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub load_peak_rss_mb: Option<Option<f64>>,
    /// Whether the peak of resident memory includes loading, because the system could not reset it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_includes_loading: Option<bool>,
    /// The rule that the case disabled to measure its effect, or `all`; absent for the full plan and for eager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ablated: Option<String>,
    /// Bytes of a failed or refused allocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_bytes: Option<u64>,
    /// The end of the standard error of a failed case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Keys of other versions of actbench, in their order.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Distinguishes a null, `Some(None)`, from an absent key, which serde fills with the default `None`.
fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rewritten(text: &str) -> String {
        serde_json::to_string(&serde_json::from_str::<CaseMetrics>(text).unwrap()).unwrap()
    }

    #[test]
    fn absent_keys_stay_absent_and_nulls_stay_null() {
        assert_eq!(rewritten("{}"), "{}");
        for text in [
            r#"{"best_auroc":null,"cpu_s":null,"load_host_to_device_bytes":null,"rss_anonymous_mb":null}"#,
            r#"{"aurocs":[[0.5,null],[]],"rss_file_mb":null,"load_peak_rss_mb":null}"#,
            r#"{"n_train":16,"cs":[0.1,1.0],"best_c":1.0,"cpu_s":0.30000000000000004,"oom_bytes":18446744073709551615}"#,
        ] {
            assert_eq!(rewritten(text), text);
        }
    }

    #[test]
    fn all_keys_keep_their_order() {
        let text = r#"{"n_train":16,"n_test":4,"n_test_positive":2,"pool":"mean","mask":"assistant","dtype":"bf16","solver":"newton","no_opt":["mask"],"#
            .to_owned()
            + r#""layer":1,"n_layers":2,"cs":[0.1],"n_trials":2,"aurocs":[[0.5],[1.0]],"best_layer":1,"best_c":0.1,"best_auroc":1.0,"#
            + r#""feature_digest":"d","tokens_total":9,"tokens_computed":8,"batches":3,"flops":7,"batches_halved":2,"cache_bytes":0,"#
            + r#""cpu_s":0.5,"release_s":0.25,"phases":{"weights_s":1.5,"release_s":0.25},"lazy_cache_disk":true,"model":"m","host_to_device_bytes":1,"device_to_host_bytes":2,"#
            + r#""load_host_to_device_bytes":3,"peak_anonymous_mb":4.5,"rss_anonymous_mb":1.5,"rss_file_mb":2.5,"load_peak_rss_mb":3.5,"#
            + r#""peak_includes_loading":false,"ablated":"all","oom_bytes":4,"stderr":"e"}"#;
        assert_eq!(rewritten(&text), text);
    }

    #[test]
    fn unknown_keys_survive_in_order() {
        let text = r#"{"flops":7,"zeta":{"b":1,"a":[null,1.5]},"alpha":null,"mid":"x"}"#;
        assert_eq!(rewritten(text), text);
    }

    #[test]
    fn known_key_of_wrong_type_is_an_error() {
        for text in [r#"{"aurocs":"none"}"#, r#"{"flops":"many"}"#, r#"{"feature_digest":7}"#] {
            assert!(serde_json::from_str::<CaseMetrics>(text).is_err(), "{text}");
        }
    }
}
