//! The devices a model runs on, as the flag `--device-map` names them.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The devices a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceMap {
    /// A GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// One GPU, by number.
    Cuda(usize),
    /// All GPUs, with the blocks split between them (pipeline parallelism).
    Balanced,
    /// This number of GPUs, with a copy of the model on each and the samples distributed among them (data parallelism).
    Replicas(usize),
}

impl fmt::Display for DeviceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceMap::Auto => f.write_str("auto"),
            DeviceMap::Cpu => f.write_str("cpu"),
            DeviceMap::Cuda(0) => f.write_str("cuda"),
            DeviceMap::Cuda(index) => write!(f, "cuda:{index}"),
            DeviceMap::Balanced => f.write_str("balanced"),
            DeviceMap::Replicas(count) => write!(f, "replicas:{count}"),
        }
    }
}

impl FromStr for DeviceMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(DeviceMap::Auto),
            "cpu" => Ok(DeviceMap::Cpu),
            "cuda" => Ok(DeviceMap::Cuda(0)),
            "balanced" => Ok(DeviceMap::Balanced),
            _ => {
                let number = |prefix: &str| text.strip_prefix(prefix).and_then(|number| number.parse::<usize>().ok());
                let replicas = || number("replicas:").filter(|count| *count > 0).map(DeviceMap::Replicas);
                number("cuda:").map(DeviceMap::Cuda).or_else(replicas).ok_or_else(|| {
                    let known = "use auto, cpu, cuda, cuda:N, balanced or replicas:K";
                    Error::usage(format!("unknown device '{text}': {known}"))
                })
            }
        }
    }
}
