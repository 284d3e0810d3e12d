//! Compiles every CUDA kernel for every architecture and compares its resources with a committed table.
//!
//! `scripts/check_cuda_kernels.sh` runs it with the compiler; no GPU is needed. A kernel must compile without ptxas
//! warnings, spills and stack frames, a block must fit a multiprocessor, and the machine code must contain the instructions
//! of its variant, and the loop of attention a minimum share of them. The table has registers, shared memory and occupancy,
//! so that a change is noticed; `--update` rewrites it. `--out` writes the machine code and a manifest, for machines that have
//! a GPU and no compiler. Mutants of some sources show that the checks detect faults.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::compiler::{compile, version};
use actbench_kernels::cuda::cubins::write_prebuilt;
use actbench_kernels::cuda::registry::{KernelSource, SOURCES};
use rayon::prelude::*;
use tempfile::NamedTempFile;

mod code;
mod log;
mod loops;
mod mutants;
mod table;

use log::Resources;
use table::Table;

/// A100; RTX 30 and A40; RTX 40 and L40; H100; B200; RTX 50, each as [`Architecture::code`].
const ARCHITECTURES: [Architecture; 6] = [
    Architecture::new(80).code(),
    Architecture::new(86).code(),
    Architecture::new(89).code(),
    Architecture::new(90).code(),
    Architecture::new(100).code(),
    Architecture::new(120).code(),
];

fn main() -> ExitCode {
    match run() {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The faults found.
fn run() -> Result<Vec<String>, String> {
    let (mut update, mut out) = (false, None);
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--update") => update = true,
            Some("--out") => out = Some(PathBuf::from(arguments.next().ok_or("--out needs a directory")?)),
            _ => return Err(format!("unknown argument {}: expected --update or --out DIR", argument.display())),
        }
    }
    let (major, minor) = version().map_err(|error| error.to_string())?;
    let pairs: Vec<(&KernelSource, Architecture)> = SOURCES
        .iter()
        .flat_map(|source| ARCHITECTURES.map(|architecture| (source, architecture)))
        .filter(|(source, architecture)| source.is_for(*architecture))
        .collect();
    let checked: Vec<CheckedCubin> =
        pairs.par_iter().map(|(source, architecture)| check(source, *architecture)).collect::<Result<_, _>>()?;
    let (mut table, mut faults, mut cubins) = (Table::new(), Vec::new(), Vec::new());
    for ((source, architecture), checked) in pairs.into_iter().zip(checked) {
        for (kernel, resources) in checked.kernels {
            table.entry(kernel).or_default().insert(architecture, resources);
        }
        faults.extend(checked.faults);
        cubins.push((source, architecture, checked.cubin));
    }
    faults.extend(table::too_large(&table));
    faults
        .extend(mutants::undetected(|source, architecture| check(source, architecture).map(|checked| checked.faults))?);
    let text = table::render(&table, &ARCHITECTURES, (major, minor));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda").join("resources.txt");
    if update {
        let directory = path.parent().ok_or("the table has no directory")?;
        let mut file = NamedTempFile::new_in(directory).map_err(|error| error.to_string())?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(|error| error.to_string())?;
        file.persist(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    } else {
        faults.extend(table::differences(&fs::read_to_string(&path).unwrap_or_default(), &text));
    }
    println!("{} kernels for {} architectures by NVRTC {major}.{minor}", table.len(), ARCHITECTURES.len());
    if let Some(directory) = out {
        let compiler = format!("NVRTC {major}.{minor}");
        write_prebuilt(&directory, &compiler, &cubins).map_err(|error| error.to_string())?;
        println!("{} cubins in {}", cubins.len(), directory.display());
    }
    Ok(faults)
}

/// One source compiled for one architecture.
struct CheckedCubin {
    kernels: BTreeMap<String, Resources>,
    faults: Vec<String>,
    cubin: Vec<u8>,
}

fn check(source: &KernelSource, architecture: Architecture) -> Result<CheckedCubin, String> {
    let compiled = compile(source, architecture).map_err(|error| error.to_string())?;
    let place = format!("{} for {architecture}", source.file);
    let (kernels, mut faults) = log::read(&compiled.log, &place)?;
    faults.extend(code::check(&compiled.cubin, &place)?);
    Ok(CheckedCubin { kernels, faults, cubin: compiled.cubin })
}
