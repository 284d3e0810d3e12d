//! What a device did during a case: how long its kernels kept it busy, the gaps between them, and its copies.

use std::collections::BTreeSet;
use std::time::Duration;

use actbench_kernels::profiled::{DeviceSpan, DeviceTrack, ProfileRecording};
use serde::Serialize;

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceReport {
    /// Its number among those of the run.
    pub device: usize,
    /// Kernels that were launched until the features were there.
    pub launches: usize,
    /// Seconds from the start of the first kernel to the end of the last.
    pub span_s: f64,
    /// Of those, seconds in which a kernel ran.
    pub busy_s: f64,
    /// Times between the end of what ran and the start of the next kernel.
    pub gaps: Gaps,
    /// Copies of weights while they were loaded.
    pub loaded: Copies,
    /// Copies to the device until the features were there.
    pub to_device: Copies,
    /// Copies from the device until the features were there.
    pub from_device: Copies,
}

/// Times in which no kernel ran, between kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Gaps {
    /// How many.
    pub count: usize,
    /// Seconds of all.
    pub total_s: f64,
    /// Seconds of the middle one.
    pub median_s: f64,
    /// Seconds of the longest.
    pub longest_s: f64,
}

/// Copies in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Copies {
    /// How many.
    pub count: usize,
    /// Bytes of all.
    pub bytes: u64,
    /// Seconds of all, by the device's clock.
    pub total_s: f64,
    /// Of those, seconds in which a kernel ran too.
    pub overlapped_s: f64,
}

type Stretch = (Duration, Duration);

impl DeviceReport {
    /// A report a device that either recording knows.
    pub fn of(loading: &ProfileRecording, extracting: &ProfileRecording) -> Vec<DeviceReport> {
        let devices: BTreeSet<usize> =
            loading.device.iter().chain(&extracting.device).map(|span| span.device).collect();
        devices.into_iter().map(|device| Self::of_one(device, loading, extracting)).collect()
    }

    fn of_one(device: usize, loading: &ProfileRecording, extracting: &ProfileRecording) -> DeviceReport {
        let of = |recording: &ProfileRecording, lane| -> Vec<DeviceSpan> {
            let ours = |span: &&DeviceSpan| (span.device, span.track) == (device, lane);
            recording.device.iter().filter(ours).cloned().collect()
        };
        let kernels = of(extracting, DeviceTrack::Kernels);
        let busy = union(&kernels);
        let gaps = Gaps::between(&busy);
        let seconds = |(start, end): &Stretch| end.saturating_sub(*start).as_secs_f64();
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
            loaded: Copies::of(&of(loading, DeviceTrack::ToDevice), &union(&of(loading, DeviceTrack::Kernels))),
            to_device: Copies::of(&of(extracting, DeviceTrack::ToDevice), &busy),
            from_device: Copies::of(&of(extracting, DeviceTrack::FromDevice), &busy),
        }
    }
}

impl Gaps {
    fn between(busy: &[Stretch]) -> Gaps {
        let mut gaps: Vec<f64> =
            busy.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].1).as_secs_f64()).collect();
        gaps.sort_by(f64::total_cmp);
        Gaps {
            count: gaps.len(),
            total_s: gaps.iter().sum(),
            median_s: gaps.get(gaps.len() / 2).copied().unwrap_or(0.0),
            longest_s: gaps.last().copied().unwrap_or(0.0),
        }
    }
}

impl Copies {
    fn of(copies: &[DeviceSpan], busy: &[Stretch]) -> Copies {
        let mut sum = Copies { count: copies.len(), ..Copies::default() };
        for copy in copies {
            let (start, end) = (copy.start, copy.start + copy.duration);
            sum.bytes += copy.bytes;
            sum.total_s += copy.duration.as_secs_f64();
            // Stretches of work are in order and apart, so those that meet the copy are neighbours.
            let first = busy.partition_point(|(_, work_end)| *work_end <= start);
            for (work_start, work_end) in busy[first..].iter().take_while(|(work_start, _)| *work_start < end) {
                sum.overlapped_s += (*work_end.min(&end)).saturating_sub(*work_start.max(&start)).as_secs_f64();
            }
        }
        sum
    }

    /// In words, such as `12 of 3.4 MB in 5.6 ms (0.6 GB/s), 0% beside kernels`.
    pub fn told(&self) -> String {
        if self.count == 0 {
            return "none".to_owned();
        }
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        format!(
            "{} of {:.1} MB in {:.1} ms ({:.1} GB/s), {:.0}% of it while a kernel ran",
            self.count,
            self.bytes as f64 / 1e6,
            self.total_s * 1e3,
            share(self.bytes as f64, self.total_s) / 1e9,
            100.0 * share(self.overlapped_s, self.total_s)
        )
    }
}

/// The stretches in which any of `spans` ran, in order; those without a gap between them are one where they overlap.
fn union(spans: &[DeviceSpan]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = spans.iter().map(|span| (span.start, span.start + span.duration)).collect();
    stretches.sort_unstable();
    let mut united: Vec<Stretch> = Vec::with_capacity(stretches.len());
    for (start, end) in stretches {
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
    fn gaps_and_overlap_are_what_lies_between_and_beside_kernels() {
        let device = vec![
            span(DeviceTrack::Kernels, 10, 20, 0),
            span(DeviceTrack::Kernels, 20, 25, 0),
            span(DeviceTrack::Kernels, 35, 45, 0),
            span(DeviceTrack::Kernels, 40, 50, 0),
            // Five of its ten milliseconds are beside a kernel, then all, then none.
            span(DeviceTrack::FromDevice, 22, 32, 1_000_000),
            span(DeviceTrack::FromDevice, 25, 35, 2_000_000),
            span(DeviceTrack::ToDevice, 36, 41, 3_000_000),
            span(DeviceTrack::ToDevice, 0, 5, 1),
        ];
        let loading = ProfileRecording { device: vec![span(DeviceTrack::ToDevice, 0, 4, 8_000_000)], host: Vec::new() };
        let reports = DeviceReport::of(&loading, &ProfileRecording { device, host: Vec::new() });
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
        assert_eq!(report.loaded.told(), "1 of 8.0 MB in 4.0 ms (2.0 GB/s), 0% of it while a kernel ran");
        assert_eq!(Copies::default().told(), "none");
    }

    #[test]
    fn a_run_without_a_device_has_no_report() {
        assert!(DeviceReport::of(&ProfileRecording::default(), &ProfileRecording::default()).is_empty());
    }
}
