//! The settings that are fixed along a curve: only cells with equal settings are points of one curve.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::case::{DeviceMap, RunConfig, Task};
use crate::results::ResultFile;
use crate::results::identity::RunIdentity;

/// The class of devices that a model ran on; recommendations are made for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceClass {
    /// The CPU.
    Cpu,
    /// One GPU.
    OneGpu,
    /// Several GPUs, blocks split between them.
    SeveralGpus,
}

impl DeviceClass {
    /// All classes, in the order of reports.
    pub const ALL: [DeviceClass; 3] = [DeviceClass::Cpu, DeviceClass::OneGpu, DeviceClass::SeveralGpus];

    /// The class for the rows of `results`. A row that ran on a GPU has GPU memory figures.
    fn of(results: &ResultFile) -> Self {
        let on_gpu = results.rows.iter().any(|row| row.gpu_peak_alloc_mb.is_some());
        let several = results.environment.gpus.len() > 1;
        match (on_gpu, results.config.device_map) {
            (true, DeviceMap::Balanced) if several => DeviceClass::SeveralGpus,
            (_, DeviceMap::Replicas(count)) if count > 1 => DeviceClass::SeveralGpus,
            (true, _) => DeviceClass::OneGpu,
            // If every case failed, no row has GPU figures, and the requested device decides.
            (false, DeviceMap::Cuda(_) | DeviceMap::Replicas(_)) => DeviceClass::OneGpu,
            (false, DeviceMap::Balanced) if several => DeviceClass::SeveralGpus,
            (false, _) => DeviceClass::Cpu,
        }
    }
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DeviceClass::Cpu => "CPU",
            DeviceClass::OneGpu => "one GPU",
            DeviceClass::SeveralGpus => "several GPUs",
        })
    }
}

/// All settings except samples and methods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Setting {
    /// The workload.
    pub task: Task,
    /// Model as named by the user, with its adapter; `embedded` by default.
    pub model: String,
    /// Data set as named by the user; `embedded` by default.
    pub dataset: String,
    /// The layer for the task `train`, the number of layers for the task `sweep`.
    pub layers: usize,
    /// Pooling method.
    pub pool: String,
    /// Which positions are pooled.
    pub mask: String,
    /// Storage type.
    pub dtype: String,
    /// Samples of a batch.
    pub batch_size: usize,
    /// Class of the devices that the model ran on.
    pub device: DeviceClass,
    /// Processor and GPUs: times of different machines are not points of one curve.
    pub machine: String,
    /// Optimizer rules that were disabled in all cases.
    pub without: String,
    /// Number of threads, or `all`.
    pub threads: String,
    /// C, solver, iterations, seed and training fraction of the probes.
    pub probe: String,
    /// Digest of the data set; empty for files without one, which are identified by name.
    pub data: String,
    /// Digest of the model; empty for files without one.
    pub weights: String,
    /// The same for people: a grid of C as its size and its ends.
    #[serde(skip)]
    pub shown_probe: String,
    /// The end of the label, if another setting has the same label without it; usually empty.
    #[serde(skip)]
    pub distinction: String,
    /// The model as tables and labels show it: the end of its path, unless another model has the same end.
    #[serde(skip)]
    pub shown_model: String,
    /// The parts that all settings share, which [`Setting::label`] leaves out.
    #[serde(skip)]
    pub shared: Vec<&'static str>,
}

/// The parts of a label that are always shown: a chart without them would not say what it shows.
const ALWAYS_SHOWN: [&str; 1] = ["depth"];

/// Determines the shown names of models and probes, the parts that all settings share, and the ends that distinguish equal labels.
pub(super) fn prepare_labels(settings: &mut [&mut Setting]) {
    let mut models: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut probes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for setting in settings.iter() {
        models.entry(setting.shown_model.clone()).or_default().insert(setting.model.clone());
        probes.entry(setting.shown_probe.clone()).or_default().insert(setting.probe.clone());
    }
    for setting in settings.iter_mut() {
        let is_unique = models.get(&setting.shown_model).is_none_or(|models| models.len() == 1);
        if !is_unique {
            setting.shown_model = setting.model.clone();
        }
        // Two grids of the same size and ends.
        if probes.get(&setting.shown_probe).is_some_and(|probes| probes.len() > 1) {
            setting.shown_probe = setting.probe.clone();
        }
    }
    distinguish_labels(settings);
    let mut values: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in settings.iter().flat_map(|setting| setting.parts()) {
        values.entry(name).or_default().insert(text);
    }
    let is_shared = |name: &&str| values.get(name).is_some_and(|values| values.len() == 1);
    for setting in settings {
        let names = setting.parts().into_iter().map(|(name, _)| name).filter(|name| !ALWAYS_SHOWN.contains(name));
        setting.shared = names.filter(is_shared).collect();
    }
}

/// `SmolLM2-135M-Instruct` of a path or of an id with its owner.
fn last_name(model: &str) -> String {
    let last = model.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty());
    last.unwrap_or(model).to_owned()
}

/// The last names of the model and of its adapter: `SmolLM2-135M-Instruct + my-lora`.
fn shown_model(config: &RunConfig) -> String {
    let model = last_name(config.model.as_deref().unwrap_or("embedded"));
    match &config.adapter {
        Some(adapter) => format!("{model} + {}", last_name(&adapter.display().to_string())),
        None => model,
    }
}

/// Characters of a digest that a label has.
const DIGEST_SHOWN: usize = 8;

/// Lets labels that are equal, although data, model or probes differ, end with the difference.
fn distinguish_labels(settings: &mut [&mut Setting]) {
    let short = |digest: &str| digest.get(..DIGEST_SHOWN).unwrap_or("unknown").to_owned();
    type Part<'a> = (&'a str, &'a dyn Fn(&Setting) -> String);
    let parts: [Part<'_>; 3] = [
        ("probes", &|setting| setting.shown_probe.clone()),
        ("data", &|setting| short(&setting.data)),
        ("weights", &|setting| short(&setting.weights)),
    ];
    let mut values: BTreeMap<(String, &str), BTreeSet<String>> = BTreeMap::new();
    for setting in settings.iter() {
        for (name, value) in &parts {
            values.entry((setting.label_of(|name| name != "depth"), name)).or_default().insert(value(setting));
        }
    }
    for setting in settings {
        let label = setting.label_of(|name| name != "depth");
        let varies = |name: &str| values.get(&(label.clone(), name)).is_some_and(|values| values.len() > 1);
        let varying = parts.iter().filter(|(name, _)| varies(name));
        setting.distinction =
            varying.map(|(name, value)| format!("{name} {}", value(setting))).collect::<Vec<_>>().join(", ");
    }
}

/// The parts in which each of `settings` differs from another of them: `SmolLM2, 8 layers`; empty texts if there is only one.
pub(super) fn distinguishing_labels(settings: &[&Setting]) -> Vec<String> {
    let all_parts: Vec<Vec<(&str, String)>> = settings.iter().map(|setting| setting.parts_with_defaults()).collect();
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, text) in all_parts.iter().flatten() {
        values.entry(name).or_default().insert(text);
    }
    let varies = |name: &str| values.get(name).is_some_and(|texts| texts.len() > 1);
    let label = |parts: &Vec<(&str, String)>| {
        let varying = parts.iter().filter(|(name, text)| varies(name) && !text.is_empty());
        varying.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", ")
    };
    all_parts.iter().map(label).collect()
}

/// The settings of the probes of `task`: exactly, and for people.
fn probe_settings(config: &RunConfig, task: Task) -> [String; 2] {
    let (cs, iterations) = match task {
        Task::Train => (&[config.train_c][..], config.train_max_iter),
        Task::Sweep => (&config.sweep_cs[..], config.sweep_max_iter),
    };
    let (solver, seed, fraction) = (config.solver, config.seed, config.train_frac);
    let exact = cs.iter().map(f64::to_string).collect::<Vec<_>>().join("/");
    [format!("C {exact}"), shown_cs(cs)]
        .map(|c| format!("{c} {solver} {iterations} iterations seed {seed} train fraction {fraction}"))
}

/// `C 0.1/1`, and `5 values of C (0.001 to 10)` for more than two.
fn shown_cs(cs: &[f64]) -> String {
    let (low, high) = (cs.iter().copied().fold(f64::INFINITY, f64::min), cs.iter().copied().fold(0.0, f64::max));
    match cs.len() {
        n if n > 2 => format!("{n} values of C ({low} to {high})"),
        _ => format!("C {}", cs.iter().map(f64::to_string).collect::<Vec<_>>().join("/")),
    }
}

impl Setting {
    /// The setting of `task` in `results`.
    pub fn of(results: &ResultFile, task: Task) -> Self {
        let (config, environment) = (&results.config, &results.environment);
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "embedded".to_owned());
        let layers = match task {
            Task::Train => config.layer,
            Task::Sweep => config.sweep_layers,
        };
        let digest =
            |of: fn(&RunIdentity) -> Option<String>| results.identity.as_ref().and_then(of).unwrap_or_default();
        let cpu = environment.cpu_model.as_deref().unwrap_or("unknown processor");
        let machine = [format!("{cpu}, {} processors", environment.cores_logical)];
        let [probe, shown_probe] = probe_settings(config, task);
        Setting {
            task,
            model: config.model_name(),
            dataset: name(&config.dataset),
            layers: layers.unwrap_or(0),
            pool: config.pool.name().to_owned(),
            mask: config.mask.name().to_owned(),
            dtype: config.dtype.name().to_owned(),
            batch_size: config.batch_size,
            device: DeviceClass::of(results),
            machine: machine.into_iter().chain(environment.gpus.clone()).collect::<Vec<_>>().join(", "),
            without: config.no_opt.join(", "),
            threads: config.threads.map_or_else(|| "all".to_owned(), |threads| threads.to_string()),
            probe,
            shown_probe,
            data: digest(|identity| identity.data.clone()),
            weights: digest(|identity| identity.weights.clone()),
            distinction: String::new(),
            shown_model: shown_model(config),
            shared: Vec::new(),
        }
    }

    /// `layer 12` for the task `train`, `16 layers` for the task `sweep`.
    pub fn depth(&self) -> String {
        match (self.task, self.layers) {
            (Task::Train, layer) => format!("layer {layer}"),
            (Task::Sweep, 1) => "1 layer".to_owned(),
            (Task::Sweep, layers) => format!("{layers} layers"),
        }
    }

    /// The task and the parts that are not the same in all settings: `sweep, 8 layers`.
    pub fn label(&self) -> String {
        self.label_of(|name| !self.shared.contains(&name))
    }

    /// The same without the layers, for charts with layers as an axis.
    pub fn label_without_layers(&self) -> String {
        self.label_of(|name| name != "depth" && !self.shared.contains(&name))
    }

    /// The parts that all settings share: `embedded, mean, bf16, batch 8, CPU`; none if there are none.
    pub fn shared_label(&self) -> Option<String> {
        let parts = self.parts().into_iter().filter(|(name, text)| self.shared.contains(name) && !text.is_empty());
        let texts: Vec<String> = parts.map(|(_, text)| text).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// All parts, without the machine: `sweep, embedded, 8 layers, mean, bf16, batch 8, CPU`.
    pub fn full_label(&self) -> String {
        self.label_of(|_| true)
    }

    fn label_of(&self, is_shown: impl Fn(&'static str) -> bool) -> String {
        let parts = self.parts().into_iter().filter(|(name, text)| is_shown(name) && !text.is_empty());
        std::iter::once(self.task.to_string()).chain(parts.map(|(_, text)| text)).collect::<Vec<_>>().join(", ")
    }

    /// The parts of a label with their names; the text of a default is empty.
    fn parts(&self) -> [(&'static str, String); 11] {
        let unless = |is_default: bool, text: String| if is_default { String::new() } else { text };
        [
            ("model", self.shown_model.clone()),
            ("dataset", unless(self.dataset == "embedded", self.dataset.clone())),
            ("depth", self.depth()),
            ("pool", self.pool.clone()),
            ("mask", unless(self.mask == "assistant", format!("mask {}", self.mask))),
            ("dtype", self.dtype.clone()),
            ("batch", format!("batch {}", self.batch_size)),
            ("device", self.device.to_string()),
            ("threads", unless(self.threads == "all", format!("{} threads", self.threads))),
            ("without", unless(self.without.is_empty(), format!("without {}", self.without))),
            ("distinction", self.distinction.clone()),
        ]
    }

    /// The parts and the machine; a default, which labels leave out, has a text.
    fn parts_with_defaults(&self) -> Vec<(&'static str, String)> {
        let machine = ("machine", self.machine.clone());
        let with_default = |(name, text): (&'static str, String)| {
            let default = match name {
                "dataset" => "data set embedded",
                "mask" => "mask assistant",
                "threads" => "all threads",
                "without" => "all rules",
                _ => "",
            };
            (name, if text.is_empty() { default.to_owned() } else { text })
        };
        self.parts().into_iter().chain([machine]).map(with_default).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{file_of, small_config};

    fn setting(model: &str, layer: usize) -> Setting {
        let config = RunConfig { model: Some(model.to_owned()), layer: Some(layer), ..small_config() };
        Setting::of(&file_of(config, []), Task::Train)
    }

    #[test]
    fn label_has_what_differs_and_end_of_model() {
        let (mut one, mut other) = (setting("/data/models/SmolLM2", 4), setting("/data/models/SmolLM2", 7));
        prepare_labels(&mut [&mut one, &mut other]);
        assert_eq!((one.label(), other.label()), ("train, layer 4".to_owned(), "train, layer 7".to_owned()));
        assert_eq!(one.label_without_layers(), "train");
        assert_eq!(one.shared_label().unwrap(), "SmolLM2, mean, bf16, batch 4, CPU");
        assert_eq!(one.full_label(), "train, SmolLM2, layer 4, mean, bf16, batch 4, CPU");
    }

    #[test]
    fn grid_of_cs_is_its_size_and_ends() {
        let with_cs = |cs: &[f64]| {
            let config = RunConfig { sweep_cs: cs.to_vec(), sweep_layers: Some(8), ..small_config() };
            Setting::of(&file_of(config, []), Task::Sweep)
        };
        let wide = [0.001, 0.01, 0.1, 1.0, 10.0];
        let (mut few, mut many) = (with_cs(&[1.0, 0.1]), with_cs(&wide));
        prepare_labels(&mut [&mut few, &mut many]);
        let end = "newton 10 iterations seed 0 train fraction 0.8";
        assert_eq!(few.label(), format!("sweep, 8 layers, probes C 1/0.1 {end}"));
        assert_eq!(many.label(), format!("sweep, 8 layers, probes 5 values of C (0.001 to 10) {end}"));
        // Other values between the same ends are shown, as nothing else tells the two apart.
        let (mut one, mut other) = (with_cs(&wide), with_cs(&[0.001, 0.02, 0.1, 1.0, 10.0]));
        prepare_labels(&mut [&mut one, &mut other]);
        assert_eq!(one.label(), format!("sweep, 8 layers, probes C 0.001/0.01/0.1/1/10 {end}"));
        assert_eq!(other.label(), format!("sweep, 8 layers, probes C 0.001/0.02/0.1/1/10 {end}"));
    }

    #[test]
    fn models_with_one_end_keep_their_paths() {
        let (mut one, mut other) = (setting("a/SmolLM2/", 4), setting("b/SmolLM2", 4));
        prepare_labels(&mut [&mut one, &mut other]);
        assert_eq!(
            (one.label(), other.label()),
            ("train, a/SmolLM2/, layer 4".to_owned(), "train, b/SmolLM2, layer 4".to_owned())
        );
        let (mut one, mut other) = (setting("owner/SmolLM2", 4), setting("synthetic:tiny", 4));
        prepare_labels(&mut [&mut one, &mut other]);
        assert_eq!((one.shown_model.as_str(), other.shown_model.as_str()), ("SmolLM2", "synthetic:tiny"));
    }
}
