//! The machine code of each kernel: that the instructions it was written for are there, and none that it must not have.

use std::env;
use std::io::Write as _;
use std::process::Command;

use tempfile::NamedTempFile;

/// Loads and stores of thread-private memory: arrays that did not fit registers.
const SLOW_INSTRUCTIONS: [&str; 2] = ["LDL", "STL"];

/// What a kernel is made of: instructions, each with parts of its name that it must have.
type Needed = &'static [(&'static str, &'static [&'static str])];

/// A product of a warp on tensor cores, loads of its operands, asynchronous copies of 16 bytes.
const MMA: Needed = &[("HMMA", &["16816"]), ("LDSM", &[]), ("LDGSTS", &["128"])];

/// A product of a warpgroup, copies of tiles to all blocks of a cluster, barriers that count them, registers that change
/// hands.
const WGMMA: Needed = &[
    ("HGMMA", &["64x256x16"]),
    ("UTMALDG", &["2D", "MULTICAST"]),
    ("UCGABAR_WAIT", &[]),
    ("SYNCS", &["TRYWAIT"]),
    ("USETMAXREG", &[]),
];

/// Stores of 16 bytes. A gate and an up projection make four outputs of 2 bytes.
const STORES: Needed = &[("STG", &["128"])];
const STORES_SWIGLU: Needed = &[("STG", &["64"])];

/// Loads and stores of 16 bytes.
const WIDE: Needed = &[("LDG", &["128"]), ("STG", &["128"])];

fn needed(kernel: &str) -> [Needed; 2] {
    match kernel {
        kernel if kernel.starts_with("linear_swiglu_wgmma_") => [WGMMA, STORES_SWIGLU],
        kernel if kernel.contains("_wgmma_") => [WGMMA, STORES],
        kernel if kernel.contains("_mma_") => [MMA, &[]],
        kernel if kernel.contains("_wide") => [WIDE, &[]],
        _ => [&[], &[]],
    }
}

/// The faults of the kernels in `cubin`; `place` is what was compiled for what.
///
/// # Errors
/// No disassembler, or one that fails.
pub fn check(cubin: &[u8], place: &str) -> Result<Vec<String>, String> {
    let mut file = NamedTempFile::new().map_err(|error| error.to_string())?;
    file.write_all(cubin).map_err(|error| error.to_string())?;
    let tool = env::var("NVDISASM").unwrap_or_else(|_| "nvdisasm".to_owned());
    let output = Command::new(&tool).arg("-c").arg(file.path()).output();
    let output = output.map_err(|error| format!("{tool}: {error}; name the disassembler in NVDISASM"))?;
    if !output.status.success() {
        return Err(format!("{tool}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Each kernel's code is a section `.text.NAME`.
    let sections: Vec<&str> = text.split(".section\t.text.").skip(1).collect();
    if sections.is_empty() {
        return Ok(vec![format!("{place}: the disassembly holds no kernel")]);
    }
    Ok(sections.into_iter().flat_map(|section| check_kernel(section, place)).collect())
}

fn check_kernel(section: &str, place: &str) -> Vec<String> {
    let kernel = section.split(',').next().unwrap_or_default();
    // An instruction and its parts are a word with points, such as LDG.E.128.
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
    for instruction in SLOW_INSTRUCTIONS.into_iter().filter(|instruction| has(instruction, &[])) {
        faults.push(format!("{kernel} in {place}: {instruction}, so an array did not fit registers"));
    }
    let needed = needed(kernel).into_iter().flatten();
    for (instruction, parts) in needed.filter(|(instruction, parts)| !has(instruction, parts)) {
        faults.push(format!("{kernel} in {place}: no {instruction} with {parts:?}"));
    }
    faults
}
