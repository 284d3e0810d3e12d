//! The machine code of each kernel: it must contain the instructions of its variant, and no local memory accesses.

use std::env;
use std::io::Write as _;
use std::process::Command;

use actbench_kernels::cuda::registry::{self, Operation, Variant};
use tempfile::NamedTempFile;

/// Loads and stores of local memory: arrays that did not fit registers.
const LOCAL_MEMORY_INSTRUCTIONS: [&str; 2] = ["LDL", "STL"];

/// Required instructions, each with required parts of its name.
type RequiredInstructions = &'static [(&'static str, &'static [&'static str])];

/// `mma.sync`, `ldmatrix`, `cp.async` of 16 bytes.
const MMA: RequiredInstructions = &[("HMMA", &["16816"]), ("LDSM", &[]), ("LDGSTS", &["128"])];

/// `wgmma`, TMA multicast, the cluster barrier, `mbarrier.try_wait`, `setmaxnreg`.
const WGMMA: RequiredInstructions = &[
    ("HGMMA", &["64x256x16"]),
    ("UTMALDG", &["2D", "MULTICAST"]),
    ("UCGABAR_WAIT", &[]),
    ("SYNCS", &["TRYWAIT"]),
    ("USETMAXREG", &[]),
];

/// Stores of 16 bytes; of 8 bytes with a gated activation, which halves the columns.
const STORES: RequiredInstructions = &[("STG", &["128"])];
const STORES_GATED: RequiredInstructions = &[("STG", &["64"])];

/// Vector loads and stores.
const WIDE: RequiredInstructions = &[("LDG", &["128"]), ("STG", &["128"])];

fn required(kernel: &str) -> [RequiredInstructions; 2] {
    match registry::named(kernel).map(|kernel| (kernel.variant, kernel.operation)) {
        Some((Variant::Wgmma, Operation::LinearGated)) => [WGMMA, STORES_GATED],
        Some((Variant::Wgmma, _)) => [WGMMA, STORES],
        Some((Variant::Mma, _)) => [MMA, &[]],
        Some((Variant::Wide, _)) => [WIDE, &[]],
        Some((Variant::Plain, _)) | None => [&[], &[]],
    }
}

/// The faults of the kernels in `cubin`; `place` names its source and architecture.
///
/// # Errors
/// The disassembler is missing or fails.
pub fn check(cubin: &[u8], place: &str) -> Result<Vec<String>, String> {
    let mut file = NamedTempFile::new().map_err(|error| error.to_string())?;
    file.write_all(cubin).map_err(|error| error.to_string())?;
    let tool = env::var("NVDISASM").unwrap_or_else(|_| "nvdisasm".to_owned());
    let output = Command::new(&tool).arg("-c").arg(file.path()).output();
    let output = output.map_err(|error| format!("{tool}: {error}; set NVDISASM to the disassembler"))?;
    if !output.status.success() {
        return Err(format!("{tool}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Each kernel's code is a section `.text.NAME`.
    let sections: Vec<&str> = text.split(".section\t.text.").skip(1).collect();
    if sections.is_empty() {
        return Ok(vec![format!("{place}: the disassembly contains no kernel")]);
    }
    Ok(sections.into_iter().flat_map(|section| check_kernel(section, place)).collect())
}

fn check_kernel(section: &str, place: &str) -> Vec<String> {
    let kernel = section.split(',').next().unwrap_or_default();
    // An instruction and its parts are one word, such as LDG.E.128.
    let has = |instruction: &str, parts: &[&str]| {
        section.split([' ', '\t', '\n', ';']).any(|word| {
            let mut names = word.split('.');
            names.next() == Some(instruction) && {
                let names: Vec<&str> = names.collect();
                parts.iter().all(|part| names.contains(part))
            }
        })
    };
    let mut faults = Vec::new();
    if !has("EXIT", &[]) {
        faults.push(format!("{kernel} in {place}: no code"));
    }
    for instruction in LOCAL_MEMORY_INSTRUCTIONS.into_iter().filter(|instruction| has(instruction, &[])) {
        faults.push(format!("{kernel} in {place}: {instruction}: an array did not fit registers"));
    }
    let required = required(kernel).into_iter().flatten();
    for (instruction, parts) in required.filter(|(instruction, parts)| !has(instruction, parts)) {
        faults.push(format!("{kernel} in {place}: no {instruction} with {parts:?}"));
    }
    faults
}
