//! The phases of a case: where the time of its process goes, the measured part included.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Seconds of the phases of a case. A phase that the device lacks is absent: the first three of a driver exist on a GPU only,
/// and not in the emulator.
///
/// Fields are declared in the order of time, except that the model is released before the probes on the CPU, where its memory
/// is theirs, and after the measurement on a GPU. Keys of other versions are kept in [`CasePhases::unknown`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CasePhases {
    /// From the start of the process to the start of the command, to 10 ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_s: Option<f64>,
    /// Reading the data and tokenizing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepare_s: Option<f64>,
    /// Loading the driver's library, `cuInit`, and the properties of the GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_init_s: Option<f64>,
    /// The contexts of the GPUs, with their streams and memory pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_s: Option<f64>,
    /// Finding or compiling the kernels, and loading them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules_s: Option<f64>,
    /// Reading, checking and converting the weights, and their upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_s: Option<f64>,
    /// From the loaded model to the start of the measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up_s: Option<f64>,
    /// Feature extraction, in the measured part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extract_s: Option<f64>,
    /// Releasing the model: in the measured part on the CPU, after it on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_s: Option<f64>,
    /// Training and scoring the probes, in the measured part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes_s: Option<f64>,
    /// Keys of other versions of actbench.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A phase: its name in tables, and its seconds.
pub type NamedPhase = (&'static str, fn(&CasePhases) -> Option<f64>);

impl CasePhases {
    /// All phases in their order.
    pub const ALL: [NamedPhase; 10] = [
        ("start", |phases| phases.start_s),
        ("data", |phases| phases.prepare_s),
        ("cuInit", |phases| phases.driver_init_s),
        ("context", |phases| phases.context_s),
        ("modules", |phases| phases.modules_s),
        ("weights", |phases| phases.weights_s),
        ("warm-up", |phases| phases.warm_up_s),
        ("extract", |phases| phases.extract_s),
        ("release", |phases| phases.release_s),
        ("probes", |phases| phases.probes_s),
    ];

    /// Names and seconds of the phases that this case had.
    pub fn present(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        Self::ALL.into_iter().filter_map(|(name, seconds)| Some((name, seconds(self)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_keep_their_order_and_unknown_keys() {
        let text =
            r#"{"start_s":0.01,"prepare_s":0.5,"driver_init_s":0.25,"context_s":0.125,"modules_s":1.0,"weights_s":2.0,"#
                .to_owned()
                + r#""warm_up_s":0.0,"extract_s":3.0,"release_s":0.085,"probes_s":4.0,"zeta":{"b":1},"alpha":null}"#;
        let phases: CasePhases = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&phases).unwrap(), text);
        let seconds: Vec<f64> = phases.present().map(|(_, seconds)| seconds).collect();
        assert_eq!(seconds, [0.01, 0.5, 0.25, 0.125, 1.0, 2.0, 0.0, 3.0, 0.085, 4.0]);
    }

    #[test]
    fn absent_phases_stay_absent() {
        let phases: CasePhases = serde_json::from_str(r#"{"weights_s":2.0}"#).unwrap();
        assert_eq!(serde_json::to_string(&phases).unwrap(), r#"{"weights_s":2.0}"#);
        assert_eq!(phases.present().collect::<Vec<_>>(), [("weights", 2.0)]);
        assert!(serde_json::from_str::<CasePhases>(r#"{"weights_s":"long"}"#).is_err());
    }
}
