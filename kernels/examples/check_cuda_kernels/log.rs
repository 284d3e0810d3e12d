//! What the compiler says of each kernel: what it takes, and everything that is a fault.

use std::collections::BTreeMap;

/// What a kernel takes on one architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Of a thread.
    pub registers: u32,
    /// Static.
    pub shared_bytes: u32,
}

/// The kernels of a log, and its faults; `place` is what was compiled for what.
///
/// # Errors
/// A line of resources without a number of registers.
pub fn read(log: &str, place: &str) -> Result<(BTreeMap<String, Resources>, Vec<String>), String> {
    let (mut kernels, mut faults, mut kernel) = (BTreeMap::new(), Vec::new(), String::new());
    for line in log.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A number is the word before the one that says what it counts.
        let number = |what: &[&str]| {
            let at = words.windows(what.len()).position(|window| window == what)?;
            words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
        };
        if line.contains("Compiling entry function") {
            kernel = line.split('\'').nth(1).unwrap_or_default().to_owned();
        } else if line.contains("stack frame") {
            let counted =
                [&["bytes", "stack", "frame,"][..], &["bytes", "spill", "stores,"], &["bytes", "spill", "loads"]];
            for what in counted {
                let found = number(what);
                if found != Some(0) {
                    let found = found.map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
                    faults.push(format!("{kernel} in {place}: {found} {}", what.join(" ")));
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

/// Warnings, and what the assembler calls information: products that it lets wait for each other, registers that it
/// does not hand over. Those have numbers of their own, such as C7515.
fn is_a_fault(line: &str) -> bool {
    ["warning", "Warning", "error", "(C7", "Potential Performance Loss"].iter().any(|word| line.contains(word))
}
