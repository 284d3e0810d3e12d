//! The compiler's log: the resources of each kernel, and warnings, spills and stack frames.

use std::collections::BTreeMap;

/// The resources of a kernel on one architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory.
    pub shared_bytes: u32,
}

/// The kernels of a log, and its faults; `place` names its source and architecture.
///
/// # Errors
/// A line of resources without registers.
pub fn read(log: &str, place: &str) -> Result<(BTreeMap<String, Resources>, Vec<String>), String> {
    let (mut kernels, mut faults, mut kernel) = (BTreeMap::new(), Vec::new(), String::new());
    for line in log.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A number is the word before its unit.
        let number = |unit: &[&str]| {
            let position = words.windows(unit.len()).position(|window| window == unit)?;
            words.get(position.checked_sub(1)?)?.parse::<u32>().ok()
        };
        if line.contains("Compiling entry function") {
            kernel = line.split('\'').nth(1).unwrap_or_default().to_owned();
        } else if line.contains("stack frame") {
            let units =
                [&["bytes", "stack", "frame,"][..], &["bytes", "spill", "stores,"], &["bytes", "spill", "loads"]];
            for unit in units {
                let found = number(unit);
                if found != Some(0) {
                    let found = found.map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
                    faults.push(format!("{kernel} in {place}: {found} {}", unit.join(" ")));
                }
            }
        } else if line.contains("Used") && line.contains("registers") {
            let registers = number(&["registers,"]).or_else(|| number(&["registers"]));
            let registers = registers.ok_or_else(|| format!("no registers in '{line}'"))?;
            let shared_bytes = number(&["bytes", "smem,"]).or_else(|| number(&["bytes", "smem"])).unwrap_or(0);
            kernels.insert(kernel.clone(), Resources { registers, shared_bytes });
        } else if is_a_fault(line) {
            faults.push(format!("{place}: {line}"));
        }
    }
    Ok((kernels, faults))
}

/// Warnings, and notes of ptxas with a number such as C7515: serialized wgmmas, an ignored setmaxnreg.
fn is_a_fault(line: &str) -> bool {
    ["warning", "Warning", "error", "(C7", "Potential Performance Loss"].iter().any(|word| line.contains(word))
}
