//! The committed table of what each kernel takes.

use std::collections::BTreeMap;

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::occupancy::{Block, launched};

use crate::log::Resources;

/// By the kernel's name.
pub type Table = BTreeMap<String, BTreeMap<Architecture, Resources>>;

/// What a block of `kernel` takes.
fn block(kernel: &str, resources: Resources) -> Block {
    let (threads, dynamic) = launched(kernel);
    Block { threads, registers: resources.registers, shared_bytes: resources.shared_bytes + dynamic }
}

/// Kernels of which not one block fits a multiprocessor.
pub fn too_large(table: &Table) -> Vec<String> {
    let mut faults = Vec::new();
    for (kernel, resources) in table {
        for (architecture, resources) in resources {
            match block(kernel, *resources).occupancy(*architecture) {
                Some((0, _)) => {
                    faults.push(format!("{kernel} for {architecture}: not one block fits a multiprocessor"))
                }
                Some(_) => {}
                None => faults.push(format!("{kernel}: the limits of {architecture} are not known")),
            }
        }
    }
    faults
}

/// The table as text, by the compiler of this `version`.
pub fn render(table: &Table, architectures: &[Architecture], version: (i32, i32)) -> String {
    let mut text = format!(
        "# What each kernel takes, by NVRTC {}.{}: threads of a block, bytes of static and of dynamic shared memory, and for\n\
         # each architecture registers of a thread and the share of a multiprocessor's warps that can be there at once.\n\
         # Written by scripts/check_cuda_kernels.sh --update. Nothing spills, nothing has a stack frame, and the assembler had\n\
         # nothing to say.\n",
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

/// The lines that differ, each as it was and as it is, with what to do.
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
            "kernels/cuda/resources.txt differs: look why, and run scripts/check_cuda_kernels.sh --update".into(),
        );
    }
    faults
}
