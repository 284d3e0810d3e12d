//! The machine code of each kernel: it must contain the instructions of its variant, and no local memory accesses.

use std::env;
use std::io::Write as _;
use std::process::Command;

use actbench_kernels::cuda::registry::{self, Kernel, Operation, Variant};
use tempfile::NamedTempFile;

use crate::loops::{self, MainLoop};

/// Loads and stores of local memory: arrays that did not fit registers.
const LOCAL_MEMORY_INSTRUCTIONS: [&str; 2] = ["LDL", "STL"];

/// The minimum share of HMMAs, per mille, in the instructions that a full block of keys takes in attention, without the copies of the next
/// block. The others, mostly of the softmax, delay them: a warp issues one instruction at a time.
const MIN_HMMA_SHARE: usize = 150;

/// The same for the HGMMAs of `attention_wgmma.cu`: a warp's part of one has the work of 8 or 16 HMMAs.
const MIN_HGMMA_SHARE: usize = 24;

/// Exponentials that `attention_wgmma.cu` must compute while P V is in flight: 32 of the softmax and 32 of the soft cap.
const MIN_OVERLAPPED_EXPONENTIALS: usize = 64;

/// Required instructions, each with required parts of its name.
type RequiredInstructions = &'static [(&'static str, &'static [&'static str])];

/// `mma.sync`, `ldmatrix`, `cp.async` of 16 bytes.
const MMA: RequiredInstructions = &[("HMMA", &["16816"]), ("LDSM", &[]), ("LDGSTS", &["128"])];

/// `wgmma`, TMA multicast, `stmatrix`, TMA stores, the cluster barrier, `mbarrier.try_wait`, `setmaxnreg`.
const WGMMA: RequiredInstructions = &[
    ("HGMMA", &["64x256x16"]),
    ("UTMALDG", &["2D", "MULTICAST"]),
    ("STSM", &["M88", "4"]),
    ("UTMASTG", &["2D"]),
    ("UCGABAR_WAIT", &[]),
    ("SYNCS", &["TRYWAIT"]),
    ("USETMAXREG", &[]),
];

/// `wgmma`, TMA, `cp.async` and `stmatrix`, stores of 16 bytes, `mbarrier.try_wait`, `setmaxnreg`.
const ATTENTION_WGMMA: RequiredInstructions = &[
    ("HGMMA", &["64x64x16"]),
    ("UTMALDG", &["2D"]),
    ("LDGSTS", &["128"]),
    ("STSM", &["M88", "4"]),
    ("STG", &["128"]),
    ("SYNCS", &["TRYWAIT"]),
    ("USETMAXREG", &[]),
];

/// The slow path of an IEEE division: a check of its operands and a call, which no other element's work overlaps.
const DIVISION_INSTRUCTIONS: [&str; 2] = ["FCHK", "CALL"];

/// Vector loads that must be in flight together.
const MIN_LOADS_IN_FLIGHT: usize = 8;

/// Vector loads and stores.
const WIDE: RequiredInstructions = &[("LDG", &["128"]), ("STG", &["128"])];

fn required(kernel: &str) -> RequiredInstructions {
    let Some(kernel) = registry::named(kernel) else { return &[] };
    match kernel.variant {
        Variant::Wgmma if kernel.operation == Operation::Attention => ATTENTION_WGMMA,
        Variant::Wgmma => WGMMA,
        Variant::Mma => MMA,
        Variant::Wide => WIDE,
        Variant::Plain => &[],
    }
}

/// The instruction that must not interrupt [`MIN_LOADS_IN_FLIGHT`] vector loads of a kernel, if it must have so many in
/// flight.
fn end_of_loads(kernel: &str) -> Option<(&'static str, &'static [&'static str])> {
    match registry::named(kernel).map(|kernel| (kernel.variant, kernel.operation))? {
        (Variant::Wide, Operation::Pool) => Some(("FADD", &[])),
        _ => None,
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

/// Whether `word` is `instruction` with all `parts`: LDG.E.128 is LDG with E and with 128.
fn is_instruction(word: &str, instruction: &str, parts: &[&str]) -> bool {
    let mut names = word.split('.');
    names.next() == Some(instruction) && {
        let names: Vec<&str> = names.collect();
        parts.iter().all(|part| names.contains(part))
    }
}

fn check_kernel(section: &str, place: &str) -> Vec<String> {
    let kernel = section.split(',').next().unwrap_or_default();
    let words = || section.split([' ', '\t', '\n', ';']);
    let has = |instruction: &str, parts: &[&str]| words().any(|word| is_instruction(word, instruction, parts));
    let mut faults = Vec::new();
    if !has("EXIT", &[]) {
        faults.push(format!("{kernel} in {place}: no code"));
    }
    for instruction in LOCAL_MEMORY_INSTRUCTIONS.into_iter().filter(|instruction| has(instruction, &[])) {
        faults.push(format!("{kernel} in {place}: {instruction}: an array did not fit registers"));
    }
    let is_gated = registry::named(kernel)
        .is_some_and(|kernel| kernel.uses_tensor_cores() && kernel.operation == Operation::LinearGated);
    for instruction in DIVISION_INSTRUCTIONS.into_iter().filter(|instruction| is_gated && has(instruction, &[])) {
        faults.push(format!("{kernel} in {place}: {instruction}: a division by its slow path"));
    }
    if let Some((instruction, parts)) = end_of_loads(kernel) {
        let (mut loads, mut most) = (0, 0);
        for word in words() {
            if is_instruction(word, instruction, parts) {
                loads = 0;
            } else if is_instruction(word, "LDG", &["128"]) {
                loads += 1;
                most = loads.max(most);
            }
        }
        if most < MIN_LOADS_IN_FLIGHT {
            faults
                .push(format!("{kernel} in {place}: {most} vector loads in flight, fewer than {MIN_LOADS_IN_FLIGHT}"));
        }
    }
    let is_wgmma = |kernel: &&Kernel| kernel.variant == Variant::Wgmma && kernel.operation.is_gemm();
    let stores_results = match registry::named(kernel).filter(is_wgmma).map(|kernel| kernel.operation) {
        None => false,
        // Its sums of squares are single words.
        Some(Operation::LinearResidual) => ["U16", "64", "128"].iter().any(|part| has("STG", &[*part])),
        Some(_) => has("STG", &[]),
    };
    if stores_results {
        faults.push(format!("{kernel} in {place}: STG: a store that is not by TMA"));
    }
    for (instruction, parts) in required(kernel).iter().filter(|(instruction, parts)| !has(instruction, parts)) {
        faults.push(format!("{kernel} in {place}: no {instruction} with {parts:?}"));
    }
    faults.extend(registry::named(kernel).and_then(|kernel| check_attention(kernel, section, place)));
    faults
}

/// The fault of the main loop of attention on tensor cores.
fn check_attention(kernel: &Kernel, section: &str, place: &str) -> Option<String> {
    let (instruction, min_share, main) = match (kernel.operation, kernel.variant) {
        (Operation::Attention, Variant::Mma) => ("HMMA", MIN_HMMA_SHARE, MainLoop::Most),
        (Operation::Attention, Variant::Wgmma) => ("HGMMA", MIN_HGMMA_SHARE, MainLoop::Innermost),
        _ => return None,
    };
    let name = kernel.name;
    let (matmuls, all) = loops::instructions_of_main_loop(section, instruction, main);
    if matmuls == 0 || matmuls * 1000 < all * min_share {
        return Some(format!(
            "{name} in {place}: {matmuls} {instruction} of {all} instructions in the loop, less than {min_share} per mille"
        ));
    }
    let overlapped = overlapped_exponentials(section);
    (kernel.variant == Variant::Wgmma && overlapped < MIN_OVERLAPPED_EXPONENTIALS).then(|| {
        format!(
            "{name} in {place}: {overlapped} exponentials while a wgmma is in flight, fewer than {MIN_OVERLAPPED_EXPONENTIALS}"
        )
    })
}

/// Exponentials between a wait that leaves one group of wgmmas in flight and the next wait.
fn overlapped_exponentials(section: &str) -> usize {
    let is_wait = |line: &&str| line.contains("WARPGROUP.DEPBAR");
    let after_wait = section.lines().skip_while(|line| !is_wait(line) || !line.contains("0x1")).skip(1);
    after_wait.take_while(|line| !is_wait(line)).filter(|line| line.contains("MUFU.EX2")).count()
}
