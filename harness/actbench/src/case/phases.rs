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

/// Phases of [`CasePhases::ALL`] before the measurement.
const N_START_UP: usize = 7;

/// The part of a process's time that passes before the measurement, from 0 to 1, by the seconds of each of [`CasePhases::ALL`];
/// none if a process had no start-up or no extraction.
pub fn start_up_share(seconds: &[Option<f64>]) -> Option<f64> {
    let sum = |phases: &[Option<f64>]| phases.iter().flatten().sum::<f64>();
    let (before, after) = seconds.split_at_checked(N_START_UP)?;
    // The first phase of the measurement.
    (*after.first()?)?;
    let (before, all) = (sum(before), sum(before) + sum(after));
    (before > 0.0 && all > before).then(|| before / all)
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

    /// The seconds of each phase, in their order.
    pub fn seconds(&self) -> [Option<f64>; Self::ALL.len()] {
        Self::ALL.map(|(_, seconds)| seconds(self))
    }

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
    fn start_up_is_all_before_extraction() {
        let phases = CasePhases {
            start_s: Some(0.01),
            prepare_s: Some(0.2),
            weights_s: Some(0.09),
            warm_up_s: Some(0.0),
            extract_s: Some(0.5),
            release_s: Some(0.1),
            probes_s: Some(0.1),
            ..CasePhases::default()
        };
        let share = start_up_share(&phases.seconds()).unwrap();
        assert!((share - 0.3).abs() < 1e-12, "{share}");
        assert_eq!(start_up_share(&CasePhases { extract_s: Some(1.0), ..CasePhases::default() }.seconds()), None);
        let unmeasured = CasePhases { weights_s: Some(1.0), release_s: Some(0.1), ..CasePhases::default() };
        assert_eq!(start_up_share(&unmeasured.seconds()), None);
        assert_eq!(start_up_share(&[]), None);
    }

    #[test]
    fn absent_phases_stay_absent() {
        let phases: CasePhases = serde_json::from_str(r#"{"weights_s":2.0}"#).unwrap();
        assert_eq!(serde_json::to_string(&phases).unwrap(), r#"{"weights_s":2.0}"#);
        assert_eq!(phases.present().collect::<Vec<_>>(), [("weights", 2.0)]);
        assert!(serde_json::from_str::<CasePhases>(r#"{"weights_s":"long"}"#).is_err());
    }
}
