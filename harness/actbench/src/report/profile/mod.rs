//! A profile as text and as JSON: one line per operation, the slowest first.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table};
use indicatif::HumanCount;
use serde::Serialize;

use crate::case::{CasePhases, Method, RunConfig, Task};
use crate::measure::clocks::GpuClocks;
use crate::measure::conditions::Warning;
use crate::report::fit::fitted;
use crate::report::phases;
use crate::workload::profile::{CaseProfile, Ceilings, RunProfile};
use pairgate::export::table_style;

mod device;

pub use device::{CopySummary, DeviceReport, GapSummary};

/// The figures of a whole profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileReport {
    /// Storage type of weights and activations.
    pub dtype: String,
    /// Threads of the model's operations on the CPU, and of the probes.
    pub threads: usize,
    /// The device that ran the model; null on the CPU.
    pub device: Option<String>,
    /// Floating-point operations per second of a large matmul, measured in this run.
    pub ceiling_flops_per_s: f64,
    /// Bytes per second, read and written, of a large copy, measured in this run.
    pub ceiling_bytes_per_s: f64,
    /// Seconds of each of these two measurements.
    pub ceiling_s: f64,
    /// Whether the ceilings are means over that time, as on a GPU, or its fastest calls.
    pub ceilings_sustained: bool,
    /// Clocks and power during the matmul; null on the CPU, and if they are unknown.
    pub ceiling_matmul_clocks: Option<GpuClocks>,
    /// The same during the copy.
    pub ceiling_copy_clocks: Option<GpuClocks>,
    /// Seconds of the phases of the process before the first case.
    pub phases: CasePhases,
    /// The cases, in the order in which they ran.
    pub cases: Vec<CaseReport>,
    /// What disturbed the measurements, as result files keep it.
    pub warnings: Vec<Warning>,
}

/// The profile of one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// The workload.
    pub task: Task,
    /// The extraction method.
    pub method: Method,
    /// Seconds of feature extraction.
    pub extract_s: f64,
    /// Extraction seconds outside of the model's operations: planning, copying features, writing the cache. On a device,
    /// seconds in which no kernel of an operation ran.
    pub outside_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// Seconds of the phases of the case.
    pub phases: CasePhases,
    /// The model's operations, the slowest first.
    pub operations: Vec<OperationReport>,
    /// Kernels, gaps and copies of each device; empty on the CPU.
    pub devices: Vec<DeviceReport>,
}

/// All calls of one operation on one shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationReport {
    /// Name of the operation.
    pub op: String,
    /// Its shape: `inputs -> outputs`, `heads / key-value heads x size`, or columns.
    pub shape: String,
    /// The kernels that ran it on a device, in launch order.
    pub kernels: Vec<String>,
    /// Number of calls.
    pub calls: usize,
    /// Seconds of all calls; on a device, the kernel time by the device's clock.
    pub total_s: f64,
    /// Median seconds of a call.
    pub median_s: f64,
    /// Fraction of the case's extraction time.
    pub share: f64,
    /// Floating-point operations of all calls; null for memory-bound operations.
    pub flops: Option<u64>,
    /// Lower bound of the bytes moved by all calls: inputs, weights, outputs.
    pub bytes: u64,
    /// Floating-point operations per second; null for memory-bound operations.
    pub flops_per_s: Option<f64>,
    /// Those bytes per second.
    pub bytes_per_s: f64,
    /// The larger of the two fractions of a ceiling that were reached.
    pub of_peak: f64,
}

impl ProfileReport {
    /// The report on `run` with the settings `config`.
    pub fn new(config: &RunConfig, run: &RunProfile, warnings: Vec<Warning>) -> Self {
        let ceilings = &run.ceilings;
        ProfileReport {
            dtype: config.dtype.to_string(),
            threads: config.n_threads(),
            device: run.device.clone(),
            ceiling_flops_per_s: ceilings.flops,
            ceiling_bytes_per_s: ceilings.bytes,
            ceiling_s: ceilings.duration.as_secs_f64(),
            ceilings_sustained: ceilings.sustained,
            ceiling_matmul_clocks: ceilings.matmul_clocks.clone(),
            ceiling_copy_clocks: ceilings.copy_clocks.clone(),
            phases: run.phases.clone(),
            cases: run.cases.iter().map(|case| CaseReport::new(case, ceilings)).collect(),
            warnings,
        }
    }
}

impl CaseReport {
    fn new(case: &CaseProfile, ceilings: &Ceilings) -> Self {
        let mut operations: Vec<OperationReport> = case
            .extracting
            .operations()
            .into_iter()
            .map(|((op, shape), entry)| {
                let total_s = entry.total().as_secs_f64();
                // The clock may be too coarse to resolve an operation; it then has no rate.
                let rate = |amount: u64| if total_s > 0.0 { amount as f64 / total_s } else { 0.0 };
                let flops = (entry.work.flops > 0).then_some(entry.work.flops);
                let flops_per_s = flops.map(rate);
                let bytes_per_s = rate(entry.work.bytes);
                OperationReport {
                    op,
                    shape,
                    calls: entry.durations.len(),
                    total_s,
                    median_s: entry.median().as_secs_f64(),
                    share: if case.extract_s > 0.0 { total_s / case.extract_s } else { 0.0 },
                    flops,
                    bytes: entry.work.bytes,
                    flops_per_s,
                    bytes_per_s,
                    kernels: entry.kernels,
                    of_peak: (flops_per_s.unwrap_or(0.0) / ceilings.flops).max(bytes_per_s / ceilings.bytes),
                }
            })
            .collect();
        operations.sort_by(|a, b| b.total_s.total_cmp(&a.total_s));
        let inside: f64 = operations.iter().map(|operation| operation.total_s).sum();
        CaseReport {
            task: case.task,
            method: case.method,
            extract_s: case.extract_s,
            // Operations run at once on several devices, so their sum may exceed the time of the case.
            outside_s: (case.extract_s - inside).max(0.0),
            train_eval_s: case.train_eval_s,
            phases: case.phases.clone(),
            operations,
            devices: DeviceReport::from_recordings(&case.loading, &case.extracting),
        }
    }
}

impl OperationReport {
    /// Whether it moved its data faster than memory can, by the measured ceiling of a copy.
    fn is_cached(&self, ceiling_bytes_per_s: f64) -> bool {
        self.bytes_per_s > MIN_FOR_CACHE * ceiling_bytes_per_s
    }
}

/// From this ceiling on, rates are printed in TFLOP/s instead of GFLOP/s.
const MIN_FOR_TERA: f64 = 1e13;

/// The unit of floating-point operations: its size and its prefix.
fn flops_unit(report: &ProfileReport) -> (f64, &'static str) {
    if report.ceiling_flops_per_s >= MIN_FOR_TERA { (1e12, "T") } else { (1e9, "G") }
}

/// Multiple of the copy's rate above which the data comes from a cache. The margin is for errors of both measurements.
const MIN_FOR_CACHE: f64 = 1.5;

/// The explanation of [`CACHE`] below the tables.
const CACHE_LEGEND: &str =
    "cache: more than 150% of the copy's rate; the data comes from caches, so memory is not the limit";

/// Printed in place of a percentage of a ceiling that does not apply.
const CACHE: &str = "cache";

/// A number with about three significant digits.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 || value == 0.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

/// The first line: dtype, device, and the ceilings with their measurement.
fn heading(report: &ProfileReport) -> String {
    let (unit, prefix) = flops_unit(report);
    let device = report.device.clone().unwrap_or_else(|| format!("{} threads", report.threads));
    let how = if report.ceilings_sustained { "sustained over" } else { "fastest calls in" };
    let unknown = match (&report.device, &report.ceiling_matmul_clocks) {
        (Some(_), None) => ", clock and power unknown",
        _ => "",
    };
    let at = |clocks: &Option<GpuClocks>| {
        clocks.as_ref().map_or_else(String::new, |clocks| {
            let mhz = clocks.sm_mhz.map_or_else(|| "?".to_owned(), |mhz| mhz.to_string());
            let watts = clocks.watts.map_or_else(|| "?".to_owned(), |watts| format!("{watts:.0}"));
            format!(" at {mhz} MHz and {watts} W")
        })
    };
    format!(
        "{}, {device}; ceilings, {how} {:.1} s each{unknown}: matmul {} {prefix}FLOP/s{}, copy {} GB/s{}\n",
        report.dtype,
        report.ceiling_s,
        digits(report.ceiling_flops_per_s / unit),
        at(&report.ceiling_matmul_clocks),
        digits(report.ceiling_bytes_per_s / 1e9),
        at(&report.ceiling_copy_clocks)
    )
}

/// A line of phases, or nothing if there are none.
fn phases_line(phases: &CasePhases) -> String {
    match phases::line(phases) {
        line if line.is_empty() => line,
        line => format!("phases: {line}\n"),
    }
}

/// The whole text: the ceilings, then for each case a table and the time outside of operations. `width` is that of the terminal;
/// without one no line of a table is wrapped.
pub fn render(report: &ProfileReport, width: Option<u16>) -> String {
    let (unit, prefix) = flops_unit(report);
    let mut text = heading(report) + &phases_line(&report.phases);
    for case in &report.cases {
        let with_kernels = case.operations.iter().any(|operation| !operation.kernels.is_empty());
        let (work, rate) = (format!("{prefix}FLOP"), format!("{prefix}FLOP/s"));
        let names =
            ["operation", "shape", "calls", "total ms", "median us", "of time", &work, "GB", &rate, "GB/s", "of peak"];
        let mut header = names.map(str::to_owned).to_vec();
        header.extend(with_kernels.then(|| "kernels".to_owned()));
        let mut table = Table::new();
        table.load_style(table_style()).set_header(header);
        for operation in &case.operations {
            let mut cells = line(operation, unit, report.ceiling_bytes_per_s);
            cells.extend(with_kernels.then(|| operation.kernels.join(", ")));
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(2).take(names.len() - 2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{} {}: feature extraction {:.3} s", case.task, case.method, case.extract_s);
        text += &fitted(table, width);
        let _ = writeln!(
            text,
            "outside of operations {:.3} s ({:.1}%); probes {:.3} s",
            case.outside_s,
            if case.extract_s > 0.0 { 100.0 * case.outside_s / case.extract_s } else { 0.0 },
            case.train_eval_s
        );
        text.push_str(&phases_line(&case.phases));
        if let Some(line) = phases::start_up_line(&report.phases, &case.phases) {
            let _ = writeln!(text, "{line}");
        }
        for device in &case.devices {
            devices(device, &mut text);
        }
    }
    let mut operations = report.cases.iter().flat_map(|case| &case.operations);
    if operations.any(|operation| operation.is_cached(report.ceiling_bytes_per_s)) {
        let _ = writeln!(text, "\n{CACHE_LEGEND}");
    }
    text
}

fn devices(device: &DeviceReport, text: &mut String) {
    let percent = if device.span_s > 0.0 { 100.0 * device.busy_s / device.span_s } else { 0.0 };
    let _ = writeln!(
        text,
        "device {}: {} launches, busy for {:.3} s of {:.3} s ({percent:.0}%); gaps: {}, {:.1} ms in total, median {:.1} us, \
         longest {:.1} us",
        device.device,
        device.launches,
        device.busy_s,
        device.span_s,
        device.gaps.count,
        device.gaps.total_s * 1e3,
        device.gaps.median_s * 1e6,
        device.gaps.longest_s * 1e6
    );
    for (label, copies) in [
        ("weight uploads", &device.loaded),
        ("uploads (H2D)", &device.to_device),
        ("downloads (D2H)", &device.from_device),
    ] {
        let _ = writeln!(text, "  {label}: {}", copies.description());
    }
}

fn line(operation: &OperationReport, unit: f64, ceiling_bytes_per_s: f64) -> Vec<String> {
    let flops = |amount: Option<f64>| amount.map_or_else(|| "-".to_owned(), |amount| digits(amount / unit));
    vec![
        operation.op.clone(),
        operation.shape.clone(),
        HumanCount(operation.calls as u64).to_string(),
        format!("{:.1}", operation.total_s * 1e3),
        format!("{:.1}", operation.median_s * 1e6),
        format!("{:.1}%", 100.0 * operation.share),
        flops(operation.flops.map(|flops| flops as f64)),
        digits(operation.bytes as f64 / 1e9),
        flops(operation.flops_per_s),
        digits(operation.bytes_per_s / 1e9),
        if operation.is_cached(ceiling_bytes_per_s) {
            CACHE.to_owned()
        } else {
            format!("{:.1}%", 100.0 * operation.of_peak)
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actbench_kernels::profiled::{DeviceSpan, DeviceTrack, HostSpan, OperationWork, ProfileRecording, SpanKind};

    use super::*;
    use crate::test_support::small_config;

    /// Consecutive operations, each with its shape, its milliseconds and its work.
    fn recording(operations: &[(&'static str, &str, u64, OperationWork)]) -> ProfileRecording {
        let mut start = Duration::ZERO;
        let mut host = Vec::new();
        for (call, (name, detail, millis, work)) in operations.iter().enumerate() {
            let duration = Duration::from_millis(*millis);
            let (name, detail, call) = ((*name).into(), (*detail).to_owned(), call as u64);
            let kind = SpanKind::Operation;
            host.push(HostSpan { kind, name, detail, work: *work, thread: 1, start, duration, call });
            start += duration;
        }
        ProfileRecording { host, device: Vec::new() }
    }

    fn report(extracting: ProfileRecording, device: Option<String>) -> ProfileReport {
        let empty = ProfileRecording::default;
        let (task, method) = (Task::Sweep, Method::Lazy);
        let case = CaseProfile {
            task,
            method,
            extract_s: 1.0,
            train_eval_s: 0.25,
            phases: CasePhases { weights_s: Some(2.0), release_s: Some(0.085), ..CasePhases::default() },
            loading: empty(),
            extracting,
            training: empty(),
        };
        let config = RunConfig { threads: Some(2), ..small_config() };
        let clocks = |mhz, watts| device.as_ref().map(|_| clocks(mhz, watts));
        let ceilings = Ceilings {
            flops: 400e9,
            bytes: 40e9,
            duration: Duration::from_millis(if device.is_some() { 1500 } else { 300 }),
            sustained: device.is_some(),
            matmul_clocks: clocks(1455, Some(693.6)),
            copy_clocks: clocks(1980, None),
        };
        let phases = CasePhases { start_s: Some(0.01), ..CasePhases::default() };
        let run = RunProfile { device, phases, ceilings, cases: vec![case] };
        ProfileReport::new(&config, &run, Vec::new())
    }

    fn clocks(mhz: u32, watts: Option<f64>) -> GpuClocks {
        GpuClocks { sm_mhz: Some(mhz), watts, ..GpuClocks::default() }
    }

    const LINEAR: OperationWork = OperationWork { flops: 40_000_000_000, bytes: 200_000_000 };
    const NORM: OperationWork = OperationWork { flops: 0, bytes: 1_000_000_000 };

    #[test]
    fn operations_are_listed_by_time() {
        let operations = [
            ("linear", "576 -> 1536", 100, LINEAR),
            ("rms norm", "576", 50, NORM),
            ("linear", "576 -> 1536", 300, LINEAR),
            ("linear", "576 -> 1536", 200, LINEAR),
            ("rms norm", "576", 50, NORM),
        ];
        insta::assert_snapshot!(render(&report(recording(&operations), None), None), @r"
bf16, 2 threads; ceilings, fastest calls in 0.3 s each: matmul 400 GFLOP/s, copy 40.0 GB/s
phases: start 0.010 s

sweep lazy: feature extraction 1.000 s
 operation   shape         calls   total ms   median us   of time   GFLOP     GB   GFLOP/s   GB/s   of peak
────────────────────────────────────────────────────────────────────────────────────────────────────────────
 linear      576 -> 1536       3      600.0    200000.0     60.0%     120   0.60       200   1.00     50.0%
 rms norm    576               2      100.0     50000.0     10.0%       -   2.00         -   20.0     50.0%
outside of operations 0.300 s (30.0%); probes 0.250 s
phases: weights 2.000 s, release 0.085 s
");
    }

    #[test]
    fn rate_beyond_memory_is_printed_as_cache() {
        let work = |bytes| OperationWork { flops: 0, bytes };
        // The copy of the ceilings moves 40 GB/s: 61 GB/s come from a cache, and 60 GB/s may be its error.
        let operations =
            [("gather rows", "576", 100, work(6_100_000_000)), ("copy rows", "384", 100, work(6_000_000_000))];
        let report = report(recording(&operations), None);
        let text = render(&report, None);
        let of_peak = |operation: &str| {
            text.lines().find(|line| line.trim_start().starts_with(operation))?.split(' ').next_back()
        };
        assert_eq!([of_peak("gather rows"), of_peak("copy rows")], [Some("cache"), Some("150.0%")], "{text}");
        assert!(text.ends_with(&format!("release 0.085 s\n\n{CACHE_LEGEND}\n")), "{text}");
        let within = self::report(recording(&operations[1..]), None);
        assert!(!render(&within, None).contains(CACHE));
    }

    #[test]
    fn unknown_clocks_of_a_device_are_named() {
        let mut report = report(recording(&[]), Some("a device".to_owned()));
        (report.ceiling_matmul_clocks, report.ceiling_copy_clocks) = (None, None);
        let text = render(&report, None);
        let first = text.lines().next().unwrap();
        let expected =
            "ceilings, sustained over 1.5 s each, clock and power unknown: matmul 400 GFLOP/s, copy 40.0 GB/s";
        assert!(first.ends_with(expected), "{first}");
    }

    #[test]
    fn device_lists_kernels_gaps_and_copies() {
        let mut recording = recording(&[("linear", "576 -> 1536", 1, LINEAR), ("rms norm", "576", 1, NORM)]);
        let mut span = |lane, name: &str, bytes, start, millis, call| {
            recording.device.push(DeviceSpan {
                device: 0,
                track: lane,
                name: name.to_owned(),
                bytes,
                start: Duration::from_millis(start),
                duration: Duration::from_millis(millis),
                call: Some(call),
            });
        };
        span(DeviceTrack::Kernels, "linear_mma_bf16", 0, 100, 200, 0);
        span(DeviceTrack::Kernels, "rms_norm_bf16", 0, 350, 50, 1);
        span(DeviceTrack::FromDevice, "copy", 4_000_000, 375, 50, 1);
        let report = report(recording, Some("a device".to_owned()));
        let narrow = render(&report, Some(80));
        let table: Vec<&str> = narrow.lines().skip(4).take_while(|line| !line.starts_with("outside")).collect();
        assert!(table.iter().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(narrow.contains("linear_mma_bf16") && narrow.contains("50.0%"), "{narrow}");
        assert!(narrow.contains("\nnot shown: "), "{narrow}");
        insta::assert_snapshot!(render(&report, None), @r"
bf16, a device; ceilings, sustained over 1.5 s each: matmul 400 GFLOP/s at 1455 MHz and 694 W, copy 40.0 GB/s at 1980 MHz and ? W
phases: start 0.010 s

sweep lazy: feature extraction 1.000 s
 operation   shape         calls   total ms   median us   of time   GFLOP     GB   GFLOP/s   GB/s   of peak   kernels
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 linear      576 -> 1536       1      200.0    200000.0     20.0%    40.0   0.20       200   1.00     50.0%   linear_mma_bf16
 rms norm    576               1       50.0     50000.0      5.0%       -   1.00         -   20.0     50.0%   rms_norm_bf16
outside of operations 0.750 s (75.0%); probes 0.250 s
phases: weights 2.000 s, release 0.085 s
device 0: 2 launches, busy for 0.250 s of 0.300 s (83%); gaps: 1, 50.0 ms in total, median 50000.0 us, longest 50000.0 us
  weight uploads: none
  uploads (H2D): none
  downloads (D2H): 1 copy, 4.0 MB in 50.0 ms (0.1 GB/s), 50% overlapped with kernels
");
    }
}
