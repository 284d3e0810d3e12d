//! Which NVIDIA GPUs the machine has, without opening one: a CUDA context of the parent would use memory that cases need.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::devices::discover::{CUDA_VARIABLE, VisibleGpus};

/// Timeout for `nvidia-smi`, which hangs when the driver does.
const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

/// The GPUs and driver versions that the environment record names; empty without a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuFacts {
    /// Names, ordered by bus address.
    pub names: Vec<String>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// Version of CUDA that the driver supports; none without `nvidia-smi`.
    pub cuda: Option<String>,
}

/// The GPUs that a model can run on: emulated and logical ones by the names that `devices` gives them, real ones by the
/// names of the system.
pub fn gpu_facts() -> GpuFacts {
    let visible = VisibleGpus::find().ok().and_then(std::result::Result::ok);
    let names = visible.iter().flat_map(|gpus| gpus.devices.iter().map(|gpu| gpu.name.clone())).collect();
    let cuda = visible.as_ref().and_then(|gpus| gpus.cuda.clone());
    let system = system_facts();
    if std::env::var_os(CUDA_VARIABLE).is_some() {
        return GpuFacts { names, driver: system.driver.filter(|_| cuda.is_some()), cuda };
    }
    GpuFacts { names: if system.names.is_empty() { names } else { system.names }, cuda: system.cuda.or(cuda), ..system }
}

/// Reads the files of the kernel module, and asks `nvidia-smi` for the CUDA version, which they lack.
fn system_facts() -> GpuFacts {
    let directory = Path::new("/proc/driver/nvidia");
    let Ok(version) = fs::read_to_string(directory.join("version")) else {
        return GpuFacts::default();
    };
    let cards = fs::read_dir(directory.join("gpus")).into_iter().flatten().flatten();
    let mut cards: Vec<_> = cards.map(|card| card.path()).collect();
    cards.sort();
    let names = cards.iter().filter_map(|card| model(&fs::read_to_string(card.join("information")).ok()?)).collect();
    GpuFacts { names, driver: driver(&version), cuda: nvidia_smi(&[]).as_deref().and_then(cuda) }
}

/// The line `Model: NVIDIA H100`.
fn model(information: &str) -> Option<String> {
    let name = information.lines().find_map(|line| line.strip_prefix("Model:"))?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The first number with dots, as in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5`.
fn driver(version: &str) -> Option<String> {
    let line = version.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// The heading of the table of `nvidia-smi`, `... CUDA Version: 12.4 |`.
fn cuda(table: &str) -> Option<String> {
    let (_, rest) = table.split_once("CUDA Version:")?;
    let word = rest.split_whitespace().next()?;
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned())
}

/// The output of `nvidia-smi` with `arguments`; none without a driver, in which case the tool is not started at all.
pub fn query(arguments: &[&str]) -> Option<String> {
    Path::new("/proc/driver/nvidia/version").exists().then(|| nvidia_smi(arguments)).flatten()
}

/// The output of `nvidia-smi`; none if it fails or exceeds [`TOOL_TIMEOUT`].
fn nvidia_smi(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.read_to_end(&mut text).is_ok();
        // The receiver is gone after a timeout.
        let _ = sender.send(read.then(|| String::from_utf8_lossy(&text).into_owned()));
    });
    let text = receiver.recv_timeout(TOOL_TIMEOUT).ok().flatten();
    if text.is_none() {
        let _ = child.kill();
    } else {
        let _ = child.wait();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_texts_yield_names_and_versions() {
        assert_eq!(
            model("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 42\n"),
            Some("NVIDIA H100 80GB HBM3".to_owned())
        );
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2.0\n";
        assert_eq!(driver(closed), Some("550.54.15".to_owned()));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n";
        assert_eq!(driver(open), Some("570.86.15".to_owned()));
        assert_eq!(driver("NVRM version: unknown\n"), None);
        assert_eq!(
            cuda("| NVIDIA-SMI 550.54  Driver Version: 550.54  CUDA Version: 12.4     |"),
            Some("12.4".to_owned())
        );
        assert_eq!(cuda("CUDA Version: N/A"), None);
        assert_eq!(cuda("NVIDIA-SMI has failed"), None);
    }
}
