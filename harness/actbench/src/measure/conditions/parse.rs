//! Parsers of the texts of `/proc`, `/sys` and `nvidia-smi`: pure functions that return none for an unexpected text.

/// Ticks of all processors since boot, from `/proc/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorTicks {
    /// Ticks of every kind. Time of guests is not added: the kernel includes it in `user`.
    pub total: u64,
    /// Ticks that the hypervisor gave to other virtual machines.
    pub stolen: u64,
}

/// The line `cpu user nice system idle iowait irq softirq steal guest guest_nice`; see proc_stat(5).
pub fn processor_ticks(stat: &str) -> Option<ProcessorTicks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let total = ticks.iter().take(8).try_fold(0u64, |sum, ticks| sum.checked_add(*ticks))?;
    Some(ProcessorTicks { total, stolen: *ticks.get(7)? })
}

/// The load averages of 1, 5 and 15 minutes, from `/proc/loadavg`.
pub fn load_average(loadavg: &str) -> Option<[f64; 3]> {
    let mut fields = loadavg.split_whitespace().map(|word| word.parse::<f64>().ok().filter(|load| load.is_finite()));
    Some([fields.next()??, fields.next()??, fields.next()??])
}

/// The number of a line `name number` of `/proc/vmstat`, or `name: number kB` of `/proc/meminfo`.
pub fn named_number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()?.trim_end_matches(':') == name).then(|| words.next()?.parse().ok())?
    })
}

/// The choice in brackets, as in `always [madvise] never`.
pub fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen.to_owned())
}

/// The percentage of the last 10 seconds in which at least one task waited: the line `some avg10=0.12 ...` of
/// `/proc/pressure/*`; see the kernel's Documentation/accounting/psi.rst.
pub fn pressure_some(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?
        .parse()
        .ok()
        .filter(|percent: &f64| percent.is_finite())
}

/// The CPU quota of a cgroup in processors: the file `cpu.max` of version 2, `quota period`; `max` means no quota.
pub fn processor_quota(cpu_max: &str) -> Option<f64> {
    let mut words = cpu_max.split_whitespace();
    let (quota, period): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The number in a file that has nothing else.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Whether the processor reports a hypervisor in the flags of `/proc/cpuinfo`.
pub fn is_virtual(cpuinfo: &str) -> bool {
    cpuinfo.lines().any(|line| line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// A process on a GPU: a line of `nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv,noheader`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GpuProcess {
    /// Process id.
    pub pid: u32,
    /// File name of the executable; its directory would reveal where a user's files are.
    pub name: String,
    /// Memory as printed by the tool; `[N/A]` if the driver does not report it.
    pub memory: String,
}

/// All processes of the output; other lines are skipped.
pub fn gpu_processes(text: &str) -> Vec<GpuProcess> {
    let process = |line: &str| {
        let (pid, rest) = line.split_once(',')?;
        // The name of an executable may contain commas, the other two fields do not.
        let (name, memory) = rest.rsplit_once(',')?;
        let name = name.trim().rsplit(['/', '\\']).next()?;
        Some(GpuProcess { pid: pid.trim().parse().ok()?, name: name.to_owned(), memory: memory.trim().to_owned() })
    };
    text.lines().filter_map(process).collect()
}

/// Why the clocks of GPUs are throttled, from `--query-gpu=index,clocks_throttle_reasons.active --format=csv,noheader`:
/// GPU and names. Idleness and application clocks are not throttling and are left out. The bits are those of NVML's
/// `nvmlClocksEventReasons`.
pub fn gpu_throttling(text: &str) -> Vec<(u32, Vec<&'static str>)> {
    const REASONS: [(u64, &str); 6] = [
        (0x04, "power cap"),
        (0x08, "hardware slowdown"),
        (0x10, "sync boost"),
        (0x20, "software thermal slowdown"),
        (0x40, "hardware thermal slowdown"),
        (0x80, "power brake"),
    ];
    let gpu = |line: &str| {
        let (index, bits) = line.split_once(',')?;
        let bits = u64::from_str_radix(bits.trim().strip_prefix("0x")?, 16).ok()?;
        let reasons: Vec<&str> = REASONS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
        (!reasons.is_empty()).then(|| Some((index.trim().parse().ok()?, reasons)))?
    };
    text.lines().filter_map(gpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_are_parsed() {
        let stat = "cpu  163118 8423 20479 49158 1851 0 204 412 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(processor_ticks(stat), Some(ProcessorTicks { total: 243_645, stolen: 412 }));
        assert_eq!(load_average("4.21 3.02 1.82 9/149 29162\n"), Some([4.21, 3.02, 1.82]));
        assert_eq!(named_number("pswpin 5\npswpout 17\n", "pswpout"), Some(17));
        assert_eq!(named_number("SwapTotal:       2048 kB\n", "SwapTotal"), Some(2048));
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(pressure_some("some avg10=1.25 avg60=0.31 avg300=0.46 total=3\nfull avg10=0.00\n"), Some(1.25));
        assert_eq!(processor_quota("150000 100000\n"), Some(1.5));
        assert_eq!(processor_quota("max 100000\n"), None);
        assert_eq!(number("12\n"), Some(12));
        assert!(is_virtual("flags\t\t: fpu hypervisor avx\n"));
        assert!(!is_virtual("model name : hypervisor\nflags : fpu\n"));
    }

    #[test]
    fn nvidia_smi_output_is_parsed() {
        let text = "4242, /usr/bin/python3, 1024 MiB\n77, C:\\a,b\\game.exe, [N/A]\nNo running processes found\n";
        let found = gpu_processes(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].pid, found[0].name.as_str(), found[0].memory.as_str()), (4242, "python3", "1024 MiB"));
        assert_eq!((found[1].pid, found[1].name.as_str()), (77, "game.exe"));
        let throttled = gpu_throttling("0, 0x0000000000000001\n1, 0x0000000000000044\n2, [N/A]\n");
        assert_eq!(throttled, [(1, vec!["power cap", "hardware thermal slowdown"])]);
    }

    #[test]
    fn unexpected_texts_are_none() {
        for text in ["", "\n", "cpu", "cpu x y", "cpu 1 2", "nan nan nan", "[", "some avg10=", "0 0", "a,b", "0, 0xzz"]
        {
            assert_eq!(processor_ticks(text), None, "{text}");
            assert_eq!(load_average(text), None, "{text}");
            assert_eq!(named_number(text, "pswpin"), None, "{text}");
            assert_eq!(chosen(text), None, "{text}");
            assert_eq!(pressure_some(text), None, "{text}");
            assert_eq!(processor_quota(text), None, "{text}");
            assert!(gpu_processes(text).is_empty() && gpu_throttling(text).is_empty(), "{text}");
        }
        assert_eq!(processor_ticks(&format!("cpu {0} {0} 1 1 1 1 1 1", u64::MAX)), None);
    }
}
