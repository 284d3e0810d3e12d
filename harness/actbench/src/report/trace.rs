//! A profile as a trace: the JSON of Chrome's trace viewer, which Perfetto (ui.perfetto.dev) reads too.
//!
//! Each case is a process, each host thread and each device lane a track of it. Phases contain operations; batches have
//! tracks of their own, because several can be in flight at once. All events are complete ones (`"ph": "X"`) with a start
//! and a duration, in the order of their starts, as the "Trace Event Format" defines them. Times are microseconds since
//! the start of the profile with three decimals, that is to the nanosecond, so that events nest exactly as their spans do.

use std::collections::BTreeSet;
use std::time::Duration;

use actbench_kernels::profiled::{DeviceSpan, DeviceTrack, HostSpan, SpanKind};
use serde_json::{Value, json};

use crate::workload::profile::CaseProfile;

/// The first track number of batches in flight, above all threads.
const FIRST_BATCH_TRACK: usize = 5_000;
/// The first track number of devices, above all batches, and the number of tracks per device.
const FIRST_DEVICE_TRACK: usize = 10_000;
const TRACKS_PER_DEVICE: usize = 10;

/// The whole trace file of `cases`.
pub fn render(cases: &[CaseProfile]) -> String {
    let mut events = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        case_events(index + 1, case, &mut events);
    }
    // One event per line keeps diffs and pagers useful.
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    format!("{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{}\n]}}\n", lines.join(",\n"))
}

fn case_events(process: usize, case: &CaseProfile, events: &mut Vec<Value>) {
    let recordings = [&case.loading, &case.extracting, &case.training];
    let host: Vec<&HostSpan> = recordings.iter().flat_map(|recording| &recording.host).collect();
    let device: Vec<&DeviceSpan> = recordings.iter().flat_map(|recording| &recording.device).collect();
    events.push(name("process_name", process, 0, &format!("{} {}", case.task, case.method)));
    for (batch, number) in host.iter().map(|span| (span.kind == SpanKind::Batch, span.thread)).collect::<BTreeSet<_>>()
    {
        let (track, label) = if batch {
            (FIRST_BATCH_TRACK + number, format!("batches, {number} in flight"))
        } else {
            (number, format!("host thread {number}"))
        };
        events.push(name("thread_name", process, track, &label));
    }
    for (number, lane) in device.iter().map(|span| (span.device, span.track)).collect::<BTreeSet<_>>() {
        events.push(name("thread_name", process, track(number, lane), &format!("device {number}: {}", lane.name())));
    }
    let mut spans: Vec<(Duration, std::cmp::Reverse<Duration>, Value)> = Vec::new();
    for span in host {
        let category = match span.kind {
            SpanKind::Phase => "phase",
            SpanKind::Batch => "batch",
            SpanKind::Operation => "operation",
        };
        let arguments = match span.kind {
            SpanKind::Phase | SpanKind::Batch => json!({ "detail": span.detail }),
            SpanKind::Operation => {
                json!({ "shape": span.detail, "flops": span.work.flops, "bytes": span.work.bytes, "call": span.call })
            }
        };
        let track = if span.kind == SpanKind::Batch { FIRST_BATCH_TRACK + span.thread } else { span.thread };
        let event = complete(process, track, (&span.name, category), span.start, span.duration, arguments);
        spans.push((span.start, std::cmp::Reverse(span.duration), event));
    }
    for span in device {
        let (category, arguments) = match span.track {
            DeviceTrack::Kernels => ("kernel", json!({ "call": span.call })),
            DeviceTrack::ToDevice | DeviceTrack::FromDevice => {
                ("copy", json!({ "bytes": span.bytes, "call": span.call }))
            }
        };
        let track = track(span.device, span.track);
        let event = complete(process, track, (&span.name, category), span.start, span.duration, arguments);
        spans.push((span.start, std::cmp::Reverse(span.duration), event));
    }
    // Of two that start together, the longer one contains the other and comes first.
    spans.sort_by_key(|(start, duration, _)| (*start, *duration));
    events.extend(spans.into_iter().map(|(_, _, event)| event));
}

fn track(device: usize, lane: DeviceTrack) -> usize {
    FIRST_DEVICE_TRACK + TRACKS_PER_DEVICE * device + lane as usize
}

fn name(what: &str, process: usize, thread: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } })
}

fn complete(
    process: usize,
    thread: usize,
    (name, category): (&str, &str),
    start: Duration,
    duration: Duration,
    arguments: Value,
) -> Value {
    let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
    json!({
        "ph": "X", "name": name, "cat": category, "pid": process, "tid": thread,
        "ts": microseconds(start), "dur": microseconds(duration), "args": arguments,
    })
}

#[cfg(test)]
mod tests {
    use actbench_kernels::profiled::{OperationWork, ProfileRecording};

    use super::*;
    use crate::case::{Method, Task};

    #[test]
    fn spans_become_events_in_start_order() {
        let host = |kind, name: &'static str, start, duration, work| HostSpan {
            kind,
            name: name.into(),
            detail: "d".to_owned(),
            work,
            thread: 1,
            start: Duration::from_nanos(start),
            duration: Duration::from_nanos(duration),
            call: 7,
        };
        let kernel = DeviceSpan {
            device: 1,
            track: DeviceTrack::Kernels,
            name: "linear_bf16".to_owned(),
            bytes: 0,
            start: Duration::from_nanos(2_001),
            duration: Duration::from_nanos(500),
            call: Some(7),
        };
        let extracting = ProfileRecording {
            host: vec![
                host(SpanKind::Operation, "linear", 1_001, 100, OperationWork { flops: 6, bytes: 4 }),
                host(SpanKind::Batch, "batch", 1_001, 2_000, OperationWork::default()),
            ],
            device: vec![kernel],
        };
        let empty = ProfileRecording::default;
        let case = CaseProfile {
            task: Task::Sweep,
            method: Method::Lazy,
            extract_s: 0.0,
            train_eval_s: 0.0,
            phases: crate::case::CasePhases::default(),
            loading: empty(),
            extracting,
            training: empty(),
        };
        insta::assert_snapshot!(render(&[case]), @r#"
{"displayTimeUnit":"ns","traceEvents":[
{"ph":"M","name":"process_name","pid":1,"tid":0,"args":{"name":"sweep lazy"}},
{"ph":"M","name":"thread_name","pid":1,"tid":1,"args":{"name":"host thread 1"}},
{"ph":"M","name":"thread_name","pid":1,"tid":5001,"args":{"name":"batches, 1 in flight"}},
{"ph":"M","name":"thread_name","pid":1,"tid":10010,"args":{"name":"device 1: kernels"}},
{"ph":"X","name":"batch","cat":"batch","pid":1,"tid":5001,"ts":1.001,"dur":2.0,"args":{"detail":"d"}},
{"ph":"X","name":"linear","cat":"operation","pid":1,"tid":1,"ts":1.001,"dur":0.1,"args":{"shape":"d","flops":6,"bytes":4,"call":7}},
{"ph":"X","name":"linear_bf16","cat":"kernel","pid":1,"tid":10010,"ts":2.001,"dur":0.5,"args":{"call":7}}
]}
"#);
    }
}
