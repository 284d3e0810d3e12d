//! Resolves `--device-map` on this machine: the CPU, or which GPUs a model goes on.

use actbench_activations::units::Bytes;

use super::discover::{CUDA_VARIABLE, Gpu, NoGpu, VisibleGpus};
use crate::case::DeviceMap;
use crate::error::{Error, Result};

/// The fraction of a GPU's memory that a model and its batches may need for `auto` to choose the GPU: the driver and
/// other processes use some of it.
const USABLE_FRACTION: f64 = 0.9;

/// How a model is distributed over its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// Its blocks are split between them, if there are several.
    Split,
    /// Each has all of it.
    Replicas,
}

/// Where a model goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On the CPU.
    Cpu,
    /// On the GPUs with these ordinals.
    Gpus(VisibleGpus, Vec<usize>, Arrangement),
}

impl Placement {
    /// Two logical devices of the single GPU of this placement, each with its own streams and pool; none for any other
    /// placement.
    pub fn on_two(&self, arrangement: Arrangement) -> Option<Placement> {
        match self {
            Placement::Gpus(gpus, ordinals, _) => match ordinals[..] {
                [ordinal] => Some(Placement::Gpus(gpus.clone(), vec![ordinal; 2], arrangement)),
                _ => None,
            },
            Placement::Cpu => None,
        }
    }
}

/// Where a model goes, with a note for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceChoice {
    /// The devices.
    pub placement: Placement,
    /// The reason, unless the user named the devices.
    pub note: Option<String>,
}

/// Decides where a model goes if it and its batches need `needed` bytes. All cases of a run get the same answer: it
/// depends on the settings and the devices, never on how much of their memory is free.
///
/// # Errors
/// A device that does not exist, or a variable with an unknown value.
pub fn choose(map: DeviceMap, needed: u64) -> Result<DeviceChoice> {
    if map == DeviceMap::Cpu {
        return Ok(DeviceChoice { placement: Placement::Cpu, note: None });
    }
    let mut found = VisibleGpus::find()?;
    if map == DeviceMap::Auto
        && let Ok(gpus) = &found
        && let Some(why) = gpus.lacks_kernels()
    {
        // An explicit request for a GPU fails with this reason later; `auto` falls back to the CPU.
        found = Err(NoGpu { why: format!("there is a GPU, {}, but {why}", gpus.devices[0].name), advice: "" });
    }
    decide(map, found, needed)
}

/// The decision for the GPUs that were `found`.
fn decide(map: DeviceMap, found: std::result::Result<VisibleGpus, NoGpu>, needed: u64) -> Result<DeviceChoice> {
    let on_cpu = |note: String| Ok(DeviceChoice { placement: Placement::Cpu, note: Some(note) });
    let gpus = match (found, map) {
        (Ok(gpus), _) => gpus,
        (Err(none), DeviceMap::Auto | DeviceMap::Cpu) => return on_cpu(format!("running on the CPU: {}", none.why)),
        (Err(NoGpu { why, .. }), DeviceMap::Balanced) => {
            return on_cpu(format!("--device-map balanced: no GPU to split the model over, running on the CPU: {why}"));
        }
        (Err(NoGpu { why, advice }), DeviceMap::Cuda(_) | DeviceMap::Replicas(_)) => {
            let what = format!("--device-map {map}: {why}; {advice}, or pass --device-map auto or cpu");
            return Err(Error::usage(what));
        }
    };
    let count = gpus.devices.len();
    let on_one_gpu = |gpus: VisibleGpus, ordinal: usize, note| {
        Ok(DeviceChoice { placement: Placement::Gpus(gpus, vec![ordinal], Arrangement::Split), note })
    };
    match map {
        DeviceMap::Cpu => Ok(DeviceChoice { placement: Placement::Cpu, note: None }),
        DeviceMap::Cuda(ordinal) if ordinal < count => on_one_gpu(gpus, ordinal, None),
        DeviceMap::Cuda(ordinal) => {
            let numbers = if count == 1 { "device 0".to_owned() } else { format!("devices 0 to {}", count - 1) };
            Err(Error::usage(format!("--device-map {map}: there is no GPU {ordinal}, only {numbers}")))
        }
        DeviceMap::Balanced => {
            let note =
                (count == 1).then(|| "--device-map balanced: there is one GPU, and all blocks go on it".to_owned());
            Ok(DeviceChoice { placement: Placement::Gpus(gpus, (0..count).collect(), Arrangement::Split), note })
        }
        DeviceMap::Replicas(replicas) if replicas > count => Err(Error::usage(format!(
            "--device-map {map}: there are {count} GPUs; pass replicas:{count} or fewer, or {CUDA_VARIABLE}=split:{replicas} \
             for {replicas} logical ones on GPU 0"
        ))),
        DeviceMap::Replicas(replicas) => {
            let placement = Placement::Gpus(gpus, (0..replicas).collect(), Arrangement::Replicas);
            Ok(DeviceChoice { placement, note: None })
        }
        DeviceMap::Auto => match gpus.devices.iter().position(|gpu| fits(gpu, needed)) {
            Some(ordinal) => {
                let note = format!("running on GPU {ordinal}, {}", gpus.devices[ordinal].name);
                on_one_gpu(gpus, ordinal, Some(note))
            }
            None => {
                let largest = gpus.devices.iter().filter_map(|gpu| gpu.memory_bytes).max().unwrap_or(0);
                on_cpu(format!(
                    "running on the CPU: model and batches need about {} and the largest GPU has {}; pass --device-map cuda \
                     to try the GPU",
                    Bytes(needed),
                    Bytes(largest)
                ))
            }
        },
    }
}

fn fits(gpu: &Gpu, needed: u64) -> bool {
    gpu.memory_bytes.is_none_or(|bytes| needed as f64 <= USABLE_FRACTION * bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::discover::GpuVisibility;

    fn gpus(sizes: &[u64]) -> std::result::Result<VisibleGpus, NoGpu> {
        let device = |bytes: &u64| Gpu { name: format!("GPU of {bytes}"), memory_bytes: Some(*bytes) };
        Ok(VisibleGpus::for_tests(GpuVisibility::Driver, sizes.iter().map(device).collect()))
    }

    fn no_driver() -> std::result::Result<VisibleGpus, NoGpu> {
        Err(NoGpu { why: "no driver".to_owned(), advice: "install one" })
    }

    fn decision(map: DeviceMap, found: std::result::Result<VisibleGpus, NoGpu>, needed: u64) -> String {
        match decide(map, found, needed) {
            Ok(DeviceChoice { placement, note }) => {
                let devices = match placement {
                    Placement::Cpu => "cpu".to_owned(),
                    Placement::Gpus(_, ordinals, arrangement) => match ordinals[..] {
                        [ordinal] => format!("gpu {ordinal}"),
                        _ => format!("{arrangement:?} {ordinals:?}"),
                    },
                };
                format!("{devices}: {}", note.unwrap_or_default())
            }
            Err(error) => format!("{}: {error}", error.exit_code()),
        }
    }

    #[test]
    fn auto_chooses_first_gpu_that_fits() {
        insta::assert_snapshot!(decision(DeviceMap::Auto, gpus(&[100, 1000]), 90), @"gpu 0: running on GPU 0, GPU of 100");
        insta::assert_snapshot!(decision(DeviceMap::Auto, gpus(&[100, 1000]), 91), @"gpu 1: running on GPU 1, GPU of 1000");
        insta::assert_snapshot!(decision(DeviceMap::Auto, gpus(&[100, 1000]), 901), @"cpu: running on the CPU: model and batches need about 901 B and the largest GPU has 1000 B; pass --device-map cuda to try the GPU");
        insta::assert_snapshot!(decision(DeviceMap::Auto, no_driver(), 1), @"cpu: running on the CPU: no driver");
    }

    #[test]
    fn named_gpu_that_is_absent_is_an_error() {
        insta::assert_snapshot!(decision(DeviceMap::Cuda(1), gpus(&[1, 1]), 90), @"gpu 1: ");
        insta::assert_snapshot!(decision(DeviceMap::Cuda(2), gpus(&[1, 1]), 90), @"2: --device-map cuda:2: there is no GPU 2, only devices 0 to 1");
        insta::assert_snapshot!(decision(DeviceMap::Cuda(0), no_driver(), 1), @"2: --device-map cuda: no driver; install one, or pass --device-map auto or cpu");
        insta::assert_snapshot!(decision(DeviceMap::Balanced, gpus(&[1, 1]), 90), @"Split [0, 1]: ");
        insta::assert_snapshot!(decision(DeviceMap::Balanced, gpus(&[1]), 90), @"gpu 0: --device-map balanced: there is one GPU, and all blocks go on it");
        insta::assert_snapshot!(decision(DeviceMap::Replicas(2), gpus(&[1, 1, 1]), 90), @"Replicas [0, 1]: ");
        insta::assert_snapshot!(decision(DeviceMap::Replicas(3), gpus(&[1, 1]), 90), @"2: --device-map replicas:3: there are 2 GPUs; pass replicas:2 or fewer, or ACTBENCH_CUDA=split:3 for 3 logical ones on GPU 0");
        insta::assert_snapshot!(decision(DeviceMap::Balanced, no_driver(), 1), @"cpu: --device-map balanced: no GPU to split the model over, running on the CPU: no driver");
    }
}
