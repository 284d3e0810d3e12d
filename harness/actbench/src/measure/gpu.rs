//! Which NVIDIA GPUs the machine has, learnt without opening one: a context in the parent would change what the
//! children have.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::workload::gpus::VARIABLE;

/// How long the driver's tool may take; it hangs when the driver does.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the driver says; nothing where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus {
    /// Names, in the order of their bus addresses.
    pub names: Vec<String>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// Version of CUDA that the driver supports; none without the driver's tool.
    pub cuda: Option<String>,
}

/// The GPUs that a model can run on: emulated and logical ones as what they are, real ones as the system names them.
pub fn gpus() -> Gpus {
    let seen = crate::workload::gpus::Gpus::find().ok().and_then(std::result::Result::ok);
    let names = seen.iter().flat_map(|seen| seen.devices.iter().map(|gpu| gpu.name.clone())).collect();
    let cuda = seen.as_ref().and_then(|seen| seen.cuda.clone());
    match std::env::var_os(VARIABLE) {
        Some(_) => Gpus { names, driver: of_system().driver.filter(|_| cuda.is_some()), cuda },
        None => {
            let system = of_system();
            Gpus {
                names: if system.names.is_empty() { names } else { system.names },
                cuda: system.cuda.or(cuda),
                ..system
            }
        }
    }
}

/// Asks the kernel module's files, and the driver's tool for what they do not hold.
fn of_system() -> Gpus {
    let folder = Path::new("/proc/driver/nvidia");
    let Ok(version) = fs::read_to_string(folder.join("version")) else {
        return Gpus::default();
    };
    let cards = fs::read_dir(folder.join("gpus")).into_iter().flatten().flatten();
    let mut folders: Vec<_> = cards.map(|card| card.path()).collect();
    folders.sort();
    let names = folders.iter().filter_map(|card| model(&fs::read_to_string(card.join("information")).ok()?)).collect();
    Gpus { names, driver: driver(&version), cuda: tool(&[]).as_deref().and_then(cuda) }
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

/// The heading of the tool's table, `... CUDA Version: 12.4 |`.
fn cuda(table: &str) -> Option<String> {
    let (_, rest) = table.split_once("CUDA Version:")?;
    let word = rest.split_whitespace().next()?;
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned())
}

/// What the driver's tool answers to `arguments`; none where there is no driver, so that a machine without a GPU never
/// starts it.
pub fn query(arguments: &[&str]) -> Option<String> {
    Path::new("/proc/driver/nvidia/version").exists().then(|| tool(arguments)).flatten()
}

/// What `nvidia-smi` prints, if it does so in time.
fn tool(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.read_to_end(&mut text).is_ok();
        // Nobody may be waiting for it any more.
        let _ = sender.send(read.then(|| String::from_utf8_lossy(&text).into_owned()));
    });
    let text = receiver.recv_timeout(PATIENCE).ok().flatten();
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
    fn names_and_versions_are_found_in_the_drivers_own_words() {
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
