//! The committed table of each kernel's resources.

use std::collections::BTreeMap;

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::occupancy::BlockResources;
use actbench_kernels::cuda::registry;

use crate::log::Resources;

/// By the kernel's name.
pub type Table = BTreeMap<String, BTreeMap<Architecture, Resources>>;

/// Threads and dynamic shared memory of a block; zeros for a kernel that is not registered.
fn launched(kernel: &str) -> (u32, u32) {
    registry::named(kernel).map(|kernel| (kernel.threads, kernel.shared_bytes)).unwrap_or_default()
}

/// The resources of a block of `kernel`.
fn block(kernel: &str, resources: Resources) -> BlockResources {
    let (threads, dynamic) = launched(kernel);
    BlockResources { threads, registers: resources.registers, shared_bytes: resources.shared_bytes + dynamic }
}

/// Kernels of which no block fits a multiprocessor, and kernels that are not registered.
pub fn too_large(table: &Table) -> Vec<String> {
    let mut faults = Vec::new();
    for (kernel, resources) in table {
        if registry::named(kernel).is_none() {
            faults.push(format!("{kernel} is not in kernels/src/cuda/registry.rs"));
        }
        for (architecture, resources) in resources {
            match block(kernel, *resources).occupancy(*architecture) {
                Some((0, _)) => faults.push(format!("{kernel} for {architecture}: no block fits a multiprocessor")),
                Some(_) => {}
                None => faults.push(format!("{kernel}: the limits of {architecture} are unknown")),
            }
        }
    }
    faults
}

/// The table as text, for the compiler of this `version`.
pub fn render(table: &Table, architectures: &[Architecture], version: (i32, i32)) -> String {
    let mut text = format!(
        "# Resources of each kernel, compiled by NVRTC {}.{}: threads of a block, bytes of static and of dynamic shared memory,\n\
         # and for each architecture registers of a thread and occupancy. Written by scripts/check_cuda_kernels.sh --update.\n\
         # No kernel spills or has a stack frame, and ptxas emits no warning.\n",
        version.0, version.1
    );
    text.push_str(&format!("{:28}{:>8}{:>8}{:>9}", "kernel", "threads", "static", "dynamic"));
    for architecture in architectures {
        text.push_str(&format!("{:>10}", architecture.to_string()));
    }
    text.push('\n');
    for (kernel, resources) in table {
        let (threads, dynamic) = launched(kernel);
        let shared: Vec<String> = resources.values().map(|resources| resources.shared_bytes.to_string()).collect();
        let same = shared.windows(2).all(|pair| pair[0] == pair[1]);
        let shared = if same { shared.first().cloned().unwrap_or_default() } else { shared.join("/") };
        text.push_str(&format!("{kernel:28}{threads:>8}{shared:>8}{dynamic:>9}"));
        for architecture in architectures {
            let cell = resources.get(architecture).map_or("-".to_owned(), |resources| {
                let (_, percent) = block(kernel, *resources).occupancy(*architecture).unwrap_or_default();
                format!("{} {percent:>3}%", resources.registers)
            });
            text.push_str(&format!("{cell:>10}"));
        }
        text.push('\n');
    }
    text
}

/// The lines that differ, old and new, and the command that updates the table.
pub fn differences(committed: &str, text: &str) -> Vec<String> {
    let count = committed.lines().count().max(text.lines().count());
    let line = |text: &str, index| text.lines().nth(index).unwrap_or("").to_owned();
    let mut faults = Vec::new();
    for index in 0..count {
        let (old, new) = (line(committed, index), line(text, index));
        if old != new {
            faults.push(format!("line {} was {old:?} and is {new:?}", index + 1));
        }
    }
    if committed != text {
        faults.push(
            "kernels/cuda/resources.txt differs: find out why, then run scripts/check_cuda_kernels.sh --update".into(),
        );
    }
    faults
}
