//! What a result file keeps under `environment`: the plain facts, their fingerprint, and what disturbs measurements.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

use super::conditions::{Warning, conditions, warnings};
use super::environment::Environment;
use super::fingerprint::Fingerprint;
use super::resolution::{self, Resolution};

/// An environment with what was derived from it when it was recorded. In JSON all of it is one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// The machine, the build and the command line.
    #[serde(flatten)]
    pub environment: Environment,
    /// Digests that tell which figures are comparable; none in files of versions that had none.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
    /// What disturbed the measurement, before and during it, and what to do about it.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// The result of `actbench selftest` on this machine; none if it was never run here.
    #[serde(default)]
    pub resolution: Option<Resolution>,
}

impl MachineRecord {
    /// Records this machine and build.
    pub fn read() -> Self {
        let state = conditions();
        let environment = Environment::read(state.huge_pages.clone());
        MachineRecord {
            fingerprint: Some(Fingerprint::of(&environment)),
            warnings: warnings(&state),
            resolution: resolution::known(&environment),
            environment,
        }
    }
}

/// Nearly all readers of a result file want a fact of its environment, so that facts are read as fields of the record.
impl Deref for MachineRecord {
    type Target = Environment;

    fn deref(&self) -> &Environment {
        &self.environment
    }
}

impl DerefMut for MachineRecord {
    fn deref_mut(&mut self) -> &mut Environment {
        &mut self.environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As files of the schema `actbench/1` have it.
    const STORED: &str = r#"{
  "date": "2026-11-27T01:02:03Z",
  "cpu_model": "A processor",
  "cores_logical": 2,
  "cores_physical": 1,
  "ram_mb": 23982.25390625,
  "governor": null,
  "kernel": "Linux 6.1",
  "instruction_set": "avx512",
  "huge_pages": "madvise",
  "gpus": [],
  "driver": null,
  "cuda": null,
  "version": "0.1.0",
  "rustc": null,
  "profile": "release",
  "target": null,
  "features": [
    "emulator"
  ],
  "rustflags": null,
  "commit": null,
  "dirty": false,
  "command_line": [
    "actbench",
    "run"
  ],
  "fingerprint": {
    "machine": "9d0a4f3455d1ade4",
    "build": "a94cf2a2f4750904"
  },
  "warnings": [
    {
      "kind": "swap",
      "level": "warning",
      "what": "5 MiB are in swap space",
      "advice": "free memory"
    }
  ],
  "resolution": {
    "machine": "9d0a4f3455d1ade4",
    "date": "2026-11-27T01:02:03Z",
    "smallest_effect": 0.05,
    "trials_without_difference": 40,
    "false_alarms": 0
  }
}"#;

    #[test]
    fn stored_record_keeps_every_byte() {
        let record: MachineRecord = serde_json::from_str(STORED).unwrap();
        assert_eq!(serde_json::to_string_pretty(&record).unwrap(), STORED);
    }

    #[test]
    fn old_record_without_derived_keys_is_read() {
        let mut value: serde_json::Value = serde_json::from_str(STORED).unwrap();
        let object = value.as_object_mut().unwrap();
        for key in ["fingerprint", "warnings", "resolution", "instruction_set", "features"] {
            object.remove(key);
        }
        let record: MachineRecord = serde_json::from_value(value).unwrap();
        assert_eq!((record.fingerprint, record.resolution, record.environment.features.len()), (None, None, 0));
    }

    #[test]
    fn record_of_this_machine_survives_json() {
        let record = MachineRecord::read();
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<MachineRecord>(&text).unwrap(), record);
        assert_eq!(record.fingerprint, Some(Fingerprint::of(&record.environment)));
    }
}
