//! Which device a run's model is loaded on: what `--device-map` means on this machine.

use indicatif::BinaryBytes;

use super::gpus::{Gpu, Gpus, NoGpu, VARIABLE};
use super::prepare::Prepared;
use crate::case::{DeviceMap, RunConfig};
use crate::error::{Error, Result};
use crate::workload::footprint::Sizes;
use crate::workload::{deepest_run, layers_of, sizes};

/// Of a GPU's memory, what a model and its batches may take for `auto` to choose it: the driver and other processes
/// have some of it.
const USABLE: f64 = 0.9;

/// How a model is arranged on the GPUs that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// Its blocks are split between them, if there are several.
    Split,
    /// All of it is on each.
    Replicas,
}

/// Where a model goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On the CPU.
    Cpu,
    /// On GPUs, by number.
    Gpus(Gpus, Vec<usize>, Arrangement),
}

impl Placement {
    /// Two logical devices of the one GPU that this is on, each with streams and a pool of its own; none of anything else.
    pub(super) fn on_two(&self, arrangement: Arrangement) -> Option<Placement> {
        match self {
            Placement::Gpus(gpus, ordinals, _) => match ordinals[..] {
                [ordinal] => Some(Placement::Gpus(gpus.clone(), vec![ordinal; 2], arrangement)),
                _ => None,
            },
            Placement::Cpu => None,
        }
    }
}

/// Where a model goes, and what to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where.
    pub placement: Placement,
    /// Why, where the user did not say it.
    pub note: Option<String>,
}

/// Decides for `config` (its layers filled in). All cases of a run get the same answer: it follows from the settings
/// and from what devices there are, never from how much of their memory is free.
///
/// # Errors
/// A device that is not there, or a variable that says nothing known.
pub fn choose(config: &RunConfig, prepared: &Prepared) -> Result<Choice> {
    let map = config.device_map;
    if map == DeviceMap::Cpu {
        return Ok(Choice { placement: Placement::Cpu, note: None });
    }
    let mut found = Gpus::find()?;
    if map == DeviceMap::Auto
        && let Ok(gpus) = &found
        && let Some(why) = gpus.lacks_kernels()
    {
        // Whoever asks for a GPU by name gets this as an error; who leaves it open is not to be stopped by it.
        found = Err(NoGpu { why: format!("there is a GPU, {}, but {why}", gpus.devices[0].name), advice: "" });
    }
    decide(map, found, needed_bytes(config, prepared)?)
}

/// The decision itself, where a model and its batches take `needed` bytes.
fn decide(map: DeviceMap, found: std::result::Result<Gpus, NoGpu>, needed: u64) -> Result<Choice> {
    let cpu = |note: String| Ok(Choice { placement: Placement::Cpu, note: Some(note) });
    let gpus = match (found, map) {
        (Ok(gpus), _) => gpus,
        (Err(none), DeviceMap::Auto | DeviceMap::Cpu) => return cpu(format!("running on the CPU: {}", none.why)),
        (Err(NoGpu { why, .. }), DeviceMap::Balanced) => {
            return cpu(format!("--device-map balanced: there is no GPU to balance over, running on the CPU: {why}"));
        }
        (Err(NoGpu { why, advice }), DeviceMap::Cuda(_) | DeviceMap::Replicas(_)) => {
            let what = format!("--device-map {map}: {why}; {advice}, or pass --device-map auto or cpu");
            return Err(Error::usage(what));
        }
    };
    let there = gpus.devices.len();
    let on = |gpus: Gpus, ordinal: usize, note| {
        Ok(Choice { placement: Placement::Gpus(gpus, vec![ordinal], Arrangement::Split), note })
    };
    match map {
        DeviceMap::Cpu => Ok(Choice { placement: Placement::Cpu, note: None }),
        DeviceMap::Cuda(ordinal) if ordinal < there => on(gpus, ordinal, None),
        DeviceMap::Cuda(ordinal) => {
            let numbers = if there == 1 { "device 0".to_owned() } else { format!("devices 0 to {}", there - 1) };
            Err(Error::usage(format!("--device-map {map}: there is no GPU {ordinal}, only {numbers}")))
        }
        DeviceMap::Balanced => {
            let note =
                (there == 1).then(|| "--device-map balanced: there is one GPU, and all blocks go on it".to_owned());
            Ok(Choice { placement: Placement::Gpus(gpus, (0..there).collect(), Arrangement::Split), note })
        }
        DeviceMap::Replicas(count) if count > there => Err(Error::usage(format!(
            "--device-map {map}: there are {there} GPUs; pass replicas:{there} or fewer, or {VARIABLE}=split:{count} for {count} \
             logical ones on GPU 0"
        ))),
        DeviceMap::Replicas(count) => {
            Ok(Choice { placement: Placement::Gpus(gpus, (0..count).collect(), Arrangement::Replicas), note: None })
        }
        DeviceMap::Auto => match gpus.devices.iter().position(|gpu| fits(gpu, needed)) {
            Some(ordinal) => {
                let note = format!("running on GPU {ordinal}, {}", gpus.devices[ordinal].name);
                on(gpus, ordinal, Some(note))
            }
            None => {
                let most = gpus.devices.iter().filter_map(|gpu| gpu.memory_bytes).max().unwrap_or(0);
                cpu(format!(
                    "running on the CPU: model and batches take about {} and the largest GPU has {}; --device-map cuda tries \
                     it all the same",
                    BinaryBytes(needed),
                    BinaryBytes(most)
                ))
            }
        },
    }
}

fn fits(gpu: &Gpu, needed: u64) -> bool {
    gpu.memory_bytes.is_none_or(|bytes| needed as f64 <= USABLE * bytes as f64)
}

/// Bytes of the weights that the deepest case of a run loads, and of its batches, about.
fn needed_bytes(config: &RunConfig, prepared: &Prepared) -> Result<u64> {
    let mut most = 0;
    for task in &config.tasks {
        let batch = Sizes::batch(&sizes(config, prepared, layers_of(config, *task).len()));
        for method in &config.methods {
            let n_blocks = deepest_run(config, *task, *method, prepared)? + 1;
            most = most.max(prepared.model.config.weight_bytes(n_blocks, config.dtype).saturating_add(batch));
        }
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::gpus::Visible;

    fn gpus(sizes: &[u64]) -> std::result::Result<Gpus, NoGpu> {
        let device = |bytes: &u64| Gpu { name: format!("GPU of {bytes}"), memory_bytes: Some(*bytes) };
        Ok(Gpus::of(Visible::Driver, sizes.iter().map(device).collect()))
    }

    fn no_driver() -> std::result::Result<Gpus, NoGpu> {
        Err(NoGpu { why: "no driver".to_owned(), advice: "install one" })
    }

    fn told(map: DeviceMap, found: std::result::Result<Gpus, NoGpu>, needed: u64) -> String {
        match decide(map, found, needed) {
            Ok(Choice { placement, note }) => {
                let place = match placement {
                    Placement::Cpu => "cpu".to_owned(),
                    Placement::Gpus(_, ordinals, arrangement) => match ordinals[..] {
                        [ordinal] => format!("gpu {ordinal}"),
                        _ => format!("{arrangement:?} {ordinals:?}"),
                    },
                };
                format!("{place}: {}", note.unwrap_or_default())
            }
            Err(error) => format!("{}: {error}", error.exit_code()),
        }
    }

    #[test]
    fn auto_takes_the_first_gpu_that_fits_and_says_why_it_takes_none() {
        insta::assert_snapshot!(told(DeviceMap::Auto, gpus(&[100, 1000]), 90), @"gpu 0: running on GPU 0, GPU of 100");
        insta::assert_snapshot!(told(DeviceMap::Auto, gpus(&[100, 1000]), 91), @"gpu 1: running on GPU 1, GPU of 1000");
        insta::assert_snapshot!(told(DeviceMap::Auto, gpus(&[100, 1000]), 901), @"cpu: running on the CPU: model and batches take about 901 B and the largest GPU has 1000 B; --device-map cuda tries it all the same");
        insta::assert_snapshot!(told(DeviceMap::Auto, no_driver(), 1), @"cpu: running on the CPU: no driver");
    }

    #[test]
    fn a_gpu_that_is_asked_for_has_to_be_there() {
        insta::assert_snapshot!(told(DeviceMap::Cuda(1), gpus(&[1, 1]), 90), @"gpu 1: ");
        insta::assert_snapshot!(told(DeviceMap::Cuda(2), gpus(&[1, 1]), 90), @"2: --device-map cuda:2: there is no GPU 2, only devices 0 to 1");
        insta::assert_snapshot!(told(DeviceMap::Cuda(0), no_driver(), 1), @"2: --device-map cuda: no driver; install one, or pass --device-map auto or cpu");
        insta::assert_snapshot!(told(DeviceMap::Balanced, gpus(&[1, 1]), 90), @"Split [0, 1]: ");
        insta::assert_snapshot!(told(DeviceMap::Balanced, gpus(&[1]), 90), @"gpu 0: --device-map balanced: there is one GPU, and all blocks go on it");
        insta::assert_snapshot!(told(DeviceMap::Replicas(2), gpus(&[1, 1, 1]), 90), @"Replicas [0, 1]: ");
        insta::assert_snapshot!(told(DeviceMap::Replicas(3), gpus(&[1, 1]), 90), @"2: --device-map replicas:3: there are 2 GPUs; pass replicas:2 or fewer, or ACTBENCH_CUDA=split:3 for 3 logical ones on GPU 0");
        insta::assert_snapshot!(told(DeviceMap::Balanced, no_driver(), 1), @"cpu: --device-map balanced: there is no GPU to balance over, running on the CPU: no driver");
    }
}
