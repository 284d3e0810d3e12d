//! The activity of a device during a case: busy time of its kernels, gaps between them, and copies.

use std::collections::BTreeSet;
use std::time::Duration;

use actbench_kernels::profiled::{DeviceSpan, DeviceTrack, ProfileRecording};
use serde::Serialize;

/// The activity of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceReport {
    /// Its number among the devices of the run.
    pub device: usize,
    /// Kernel launches of the extraction.
    pub launches: usize,
    /// Seconds from the start of the first kernel to the end of the last.
    pub span_s: f64,
    /// Seconds of that span in which a kernel ran.
    pub busy_s: f64,
    /// Times in which no kernel ran, between the first and the last.
    pub gaps: GapSummary,
    /// Uploads of weights while the model was loaded.
    pub loaded: CopySummary,
    /// Host-to-device copies of the extraction.
    pub to_device: CopySummary,
    /// Device-to-host copies of the extraction.
    pub from_device: CopySummary,
}

/// Times between kernels in which none ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct GapSummary {
    /// Number of them.
    pub count: usize,
    /// Seconds in total.
    pub total_s: f64,
    /// Median seconds.
    pub median_s: f64,
    /// Seconds of the longest.
    pub longest_s: f64,
}

/// Copies in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CopySummary {
    /// Number of them.
    pub count: usize,
    /// Bytes in total.
    pub bytes: u64,
    /// Seconds in total, by the device's clock.
    pub total_s: f64,
    /// Seconds of copying during which a kernel ran.
    pub overlapped_s: f64,
}

/// Start and end.
type Span = (Duration, Duration);

impl DeviceReport {
    /// One report for each device of either recording.
    pub fn from_recordings(loading: &ProfileRecording, extracting: &ProfileRecording) -> Vec<DeviceReport> {
        let devices: BTreeSet<usize> =
            loading.device.iter().chain(&extracting.device).map(|span| span.device).collect();
        devices.into_iter().map(|device| Self::for_device(device, loading, extracting)).collect()
    }

    fn for_device(device: usize, loading: &ProfileRecording, extracting: &ProfileRecording) -> DeviceReport {
        let spans_of = |recording: &ProfileRecording, lane| -> Vec<DeviceSpan> {
            let is_wanted = |span: &&DeviceSpan| (span.device, span.track) == (device, lane);
            recording.device.iter().filter(is_wanted).cloned().collect()
        };
        let kernels = spans_of(extracting, DeviceTrack::Kernels);
        let busy = union(&kernels);
        let gaps = GapSummary::between(&busy);
        let seconds = |(start, end): &Span| end.saturating_sub(*start).as_secs_f64();
        let span_s = match (busy.first(), busy.last()) {
            (Some(first), Some(last)) => seconds(&(first.0, last.1)),
            _ => 0.0,
        };
        DeviceReport {
            device,
            launches: kernels.len(),
            span_s,
            busy_s: busy.iter().map(seconds).sum(),
            gaps,
            loaded: CopySummary::new(
                &spans_of(loading, DeviceTrack::ToDevice),
                &union(&spans_of(loading, DeviceTrack::Kernels)),
            ),
            to_device: CopySummary::new(&spans_of(extracting, DeviceTrack::ToDevice), &busy),
            from_device: CopySummary::new(&spans_of(extracting, DeviceTrack::FromDevice), &busy),
        }
    }
}

impl GapSummary {
    fn between(busy: &[Span]) -> GapSummary {
        let mut gaps: Vec<f64> =
            busy.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].1).as_secs_f64()).collect();
        gaps.sort_by(f64::total_cmp);
        GapSummary {
            count: gaps.len(),
            total_s: gaps.iter().sum(),
            median_s: gaps.get(gaps.len() / 2).copied().unwrap_or(0.0),
            longest_s: gaps.last().copied().unwrap_or(0.0),
        }
    }
}

impl CopySummary {
    fn new(copies: &[DeviceSpan], busy: &[Span]) -> CopySummary {
        let mut sum = CopySummary { count: copies.len(), ..CopySummary::default() };
        for copy in copies {
            let (start, end) = (copy.start, copy.start + copy.duration);
            sum.bytes += copy.bytes;
            sum.total_s += copy.duration.as_secs_f64();
            // Busy spans are sorted and disjoint, so those that overlap the copy are consecutive.
            let first = busy.partition_point(|(_, busy_end)| *busy_end <= start);
            for (busy_start, busy_end) in busy[first..].iter().take_while(|(busy_start, _)| *busy_start < end) {
                sum.overlapped_s += (*busy_end.min(&end)).saturating_sub(*busy_start.max(&start)).as_secs_f64();
            }
        }
        sum
    }

    /// `12 copies, 3.4 MB in 5.6 ms (0.6 GB/s), 0% overlapped with kernels`.
    pub fn description(&self) -> String {
        if self.count == 0 {
            return "none".to_owned();
        }
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        format!(
            "{} {}, {:.1} MB in {:.1} ms ({:.1} GB/s), {:.0}% overlapped with kernels",
            self.count,
            if self.count == 1 { "copy" } else { "copies" },
            self.bytes as f64 / 1e6,
            self.total_s * 1e3,
            ratio(self.bytes as f64, self.total_s) / 1e9,
            100.0 * ratio(self.overlapped_s, self.total_s)
        )
    }
}

/// The union of `spans`, sorted; overlapping spans are merged, and spans that only touch stay apart.
fn union(spans: &[DeviceSpan]) -> Vec<Span> {
    let mut sorted: Vec<Span> = spans.iter().map(|span| (span.start, span.start + span.duration)).collect();
    sorted.sort_unstable();
    let mut united: Vec<Span> = Vec::with_capacity(sorted.len());
    for (start, end) in sorted {
        match united.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => united.push((start, end)),
        }
    }
    united
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lane: DeviceTrack, start_ms: u64, end_ms: u64, bytes: u64) -> DeviceSpan {
        DeviceSpan {
            device: 0,
            track: lane,
            name: "x".to_owned(),
            bytes,
            start: Duration::from_millis(start_ms),
            duration: Duration::from_millis(end_ms - start_ms),
            call: None,
        }
    }

    #[test]
    fn gaps_and_overlap_follow_from_spans() {
        let device = vec![
            span(DeviceTrack::Kernels, 10, 20, 0),
            span(DeviceTrack::Kernels, 20, 25, 0),
            span(DeviceTrack::Kernels, 35, 45, 0),
            span(DeviceTrack::Kernels, 40, 50, 0),
            // Overlapped with a kernel: 3 ms, none; of the uploads all 5 ms, none.
            span(DeviceTrack::FromDevice, 22, 32, 1_000_000),
            span(DeviceTrack::FromDevice, 25, 35, 2_000_000),
            span(DeviceTrack::ToDevice, 36, 41, 3_000_000),
            span(DeviceTrack::ToDevice, 0, 5, 1),
        ];
        let loading = ProfileRecording { device: vec![span(DeviceTrack::ToDevice, 0, 4, 8_000_000)], host: Vec::new() };
        let reports = DeviceReport::from_recordings(&loading, &ProfileRecording { device, host: Vec::new() });
        let [report] = &reports[..] else { unreachable!("one device") };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        assert_eq!((report.launches, report.gaps.count), (4, 2));
        near(report.span_s, 0.040);
        near(report.busy_s, 0.030);
        near(report.gaps.total_s, 0.010);
        near(report.gaps.longest_s, 0.010);
        near(report.from_device.overlapped_s, 0.003);
        near(report.to_device.overlapped_s, 0.005);
        near(report.to_device.total_s, 0.010);
        near(report.loaded.overlapped_s, 0.0);
        assert_eq!(report.loaded.description(), "1 copy, 8.0 MB in 4.0 ms (2.0 GB/s), 0% overlapped with kernels");
        assert_eq!(CopySummary::default().description(), "none");
    }

    #[test]
    fn run_without_device_has_no_report() {
        assert!(DeviceReport::from_recordings(&ProfileRecording::default(), &ProfileRecording::default()).is_empty());
    }
}
