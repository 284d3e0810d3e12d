//! Compiles every CUDA kernel for every architecture and compares what it takes of a GPU with a committed table.
//!
//! `scripts/check_cuda_kernels.sh` runs it with the compiler it needs; no GPU is involved. A kernel must compile without
//! a warning, spill nothing and have no stack frame, and its tensor-core instructions must be there. Registers and
//! shared memory are in the table, so that a change of them is seen and looked at; `--update` writes it anew. `--out`
//! keeps the machine code, with a manifest, for machines that have a GPU and no compiler.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::compiler::{compile, version};
use actbench_kernels::cuda::cubins::write_prebuilt;
use actbench_kernels::cuda::sources::{KernelSource, SOURCES};
use tempfile::NamedTempFile;

/// A100; RTX 30 and A40; RTX 40 and L40; H100; B200; RTX 50. What each is given is [`Architecture::code`] of it.
const ARCHITECTURES: [Architecture; 6] = [
    Architecture::new(80).code(),
    Architecture::new(86).code(),
    Architecture::new(89).code(),
    Architecture::new(90).code(),
    Architecture::new(100).code(),
    Architecture::new(120).code(),
];

/// What the fast kernels are made of: a product of tensor cores, loads of its operands, asynchronous copies.
const FAST_INSTRUCTIONS: [&str; 3] = ["HMMA.16816", "LDSM", "LDGSTS"];

/// Loads and stores of thread-private memory: arrays that did not fit registers.
const SLOW_INSTRUCTIONS: [&str; 2] = ["LDL", "STL"];

/// What a kernel takes on one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resources {
    registers: u32,
    shared_bytes: u32,
}

type Table = BTreeMap<String, BTreeMap<Architecture, Resources>>;

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
            Some("--out") => out = Some(PathBuf::from(arguments.next().ok_or("--out needs a folder")?)),
            _ => return Err(format!("unknown argument {}: --update or --out DIR", argument.display())),
        }
    }
    let (major, minor) = version().map_err(|error| error.to_string())?;
    let mut table = Table::new();
    let mut faults = Vec::new();
    let mut cubins = Vec::new();
    for source in SOURCES {
        for architecture in ARCHITECTURES {
            cubins.push((source, architecture, check(source, architecture, &mut table, &mut faults)?));
        }
    }
    let text = render(&table, (major, minor));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda").join("resources.txt");
    if update {
        let folder = path.parent().ok_or("the table has no folder")?;
        let mut file = NamedTempFile::new_in(folder).map_err(|error| error.to_string())?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(|error| error.to_string())?;
        file.persist(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    } else {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        for (line, (old, new)) in lines(&committed, &text).into_iter().enumerate() {
            if old != new {
                faults.push(format!("line {} was {old:?} and is {new:?}", line + 1));
            }
        }
        if committed != text {
            faults.push(
                "kernels/cuda/resources.txt differs: look why, and run scripts/check_cuda_kernels.sh --update".into(),
            );
        }
    }
    println!("{} kernels for {} architectures by NVRTC {major}.{minor}", table.len(), ARCHITECTURES.len());
    if let Some(folder) = out {
        let compiler = format!("NVRTC {major}.{minor}");
        write_prebuilt(&folder, &compiler, &cubins).map_err(|error| error.to_string())?;
        println!("{} cubins in {}", cubins.len(), folder.display());
    }
    Ok(faults)
}

/// Compiles one source and notes its kernels' resources and faults. The machine code.
fn check(
    source: &'static KernelSource,
    architecture: Architecture,
    table: &mut Table,
    faults: &mut Vec<String>,
) -> Result<Vec<u8>, String> {
    let compiled = compile(source, architecture).map_err(|error| error.to_string())?;
    let place = format!("{} for {architecture}", source.file);
    let mut kernel = String::new();
    for line in compiled.log.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A number is the word before the one that says what it counts.
        let number = |what: &[&str]| {
            let at = words.windows(what.len()).position(|window| window == what)?;
            words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
        };
        if line.contains("Compiling entry function") {
            kernel = line.split('\'').nth(1).unwrap_or_default().to_owned();
        } else if line.contains("stack frame") {
            for what in
                [&["bytes", "stack", "frame,"][..], &["bytes", "spill", "stores,"], &["bytes", "spill", "loads"]]
            {
                match number(what) {
                    Some(0) => {}
                    found => {
                        let found = found.map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
                        faults.push(format!("{kernel} in {place}: {found} {}", what.join(" ")));
                    }
                }
            }
        } else if line.contains("Used") && line.contains("registers") {
            let registers = number(&["registers,"]).or_else(|| number(&["registers"]));
            let registers = registers.ok_or_else(|| format!("no registers in '{line}'"))?;
            let shared_bytes = number(&["bytes", "smem,"]).or_else(|| number(&["bytes", "smem"])).unwrap_or(0);
            table.entry(kernel.clone()).or_default().insert(architecture, Resources { registers, shared_bytes });
        } else if line.contains("warning") || line.contains("Warning") || line.contains("error") {
            faults.push(format!("{place}: {line}"));
        }
    }
    check_instructions(source, &place, &compiled.cubin, faults)?;
    Ok(compiled.cubin)
}

/// Disassembles and looks for what must be there and what must not.
fn check_instructions(
    source: &KernelSource,
    place: &str,
    cubin: &[u8],
    faults: &mut Vec<String>,
) -> Result<(), String> {
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
        faults.push(format!("{place}: the disassembly holds no kernel"));
    }
    for section in sections {
        let kernel = section.split(',').next().unwrap_or_default();
        let has = |instruction: &str| {
            section.split_whitespace().any(|word| word == instruction || word.starts_with(&format!("{instruction}.")))
        };
        if !has("EXIT") {
            faults.push(format!("{kernel} in {place}: no code"));
        }
        for instruction in SLOW_INSTRUCTIONS.into_iter().filter(|instruction| has(instruction)) {
            faults.push(format!("{kernel} in {place}: {instruction}, so an array did not fit registers"));
        }
        for instruction in FAST_INSTRUCTIONS {
            if source.file.ends_with("_mma.cu") && !has(instruction) {
                faults.push(format!("{kernel} in {place}: no {instruction}"));
            }
        }
    }
    Ok(())
}

fn render(table: &Table, version: (i32, i32)) -> String {
    let mut text = format!(
        "# What each kernel takes, by NVRTC {}.{}: registers of a thread and bytes of static shared memory.\n\
         # Written by scripts/check_cuda_kernels.sh --update. Nothing spills and nothing has a stack frame.\n",
        version.0, version.1
    );
    text.push_str(&format!("{:32}{:>8}", "kernel", "shared"));
    for architecture in ARCHITECTURES {
        text.push_str(&format!("{:>8}", architecture.to_string()));
    }
    text.push('\n');
    for (kernel, resources) in table {
        let shared: Vec<String> = resources.values().map(|resources| resources.shared_bytes.to_string()).collect();
        let same = shared.windows(2).all(|pair| pair[0] == pair[1]);
        let shared = if same { shared.first().cloned().unwrap_or_default() } else { shared.join("/") };
        text.push_str(&format!("{kernel:32}{shared:>8}"));
        for architecture in ARCHITECTURES {
            let registers =
                resources.get(&architecture).map_or("-".into(), |resources| resources.registers.to_string());
            text.push_str(&format!("{registers:>8}"));
        }
        text.push('\n');
    }
    text
}

/// The lines of both texts side by side.
fn lines<'a>(old: &'a str, new: &'a str) -> Vec<(&'a str, &'a str)> {
    let count = old.lines().count().max(new.lines().count());
    (0..count).map(|line| (old.lines().nth(line).unwrap_or(""), new.lines().nth(line).unwrap_or(""))).collect()
}
