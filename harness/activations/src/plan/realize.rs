//! Materializes plans: in memory, batch by batch, layer by layer, or in a file.

use std::collections::HashMap;
use std::path::Path;

use super::axes::Axis;
use super::cache_file::{CacheFile, CacheWriter, SampleTable};
use super::execute::{Assembler, Execution, SamplePositions};
use super::lazy_plan::Acts;
use super::sources::PlanSource;
use super::tensor::ActTensor;
use crate::error::{Error, Result};

impl Acts {
    /// Computes the whole result. In any plan the model runs once a sample.
    ///
    /// # Errors
    /// A failure of the model or of the file, or not enough memory.
    pub fn realize(&self) -> Result<ActTensor> {
        let execution = self.execution()?;
        let samples = execution.plan.samples.clone();
        execution.tensor_of(&samples)
    }

    /// Computes the result `n` samples at a time, in order; the last part may be smaller. The model runs once a
    /// sample even if an index was repeated; prefixes are shared within the samples that are computed together.
    ///
    /// # Errors
    /// `n` of 0. The iterator ends with the first error.
    pub fn iter_batches(&self, n: usize) -> Result<BatchIter> {
        if n == 0 {
            return Err(Error::usage("iter_batches(0): use at least 1 sample"));
        }
        let execution = self.execution()?;
        // Parts smaller than a batch of the model are cut from one batch, which is faster than smaller batches.
        let window = match &self.source() {
            // Without the rule `batch` every sample is run for each window, so there is only one window.
            PlanSource::Model(_) if execution.plan.all_samples => usize::MAX,
            PlanSource::Model(source) => source.batch_size().div_ceil(n).saturating_mul(n),
            _ => n,
        };
        let mut last_use = HashMap::new();
        if matches!(self.source(), PlanSource::Model(_)) {
            last_use.extend(execution.plan.samples.iter().enumerate().map(|(position, sample)| (*sample, position)));
        }
        Ok(BatchIter { execution, n, window, next: 0, buffer: None, last_use, retained: HashMap::new() })
    }

    /// Computes the result one layer at a time: its number, and the result without axis `l`. From a file or from
    /// memory each layer is read on its own; a model runs once, so there all layers are computed with the first.
    ///
    /// # Errors
    /// No axis `l`; from a model, the errors of [`Acts::realize`].
    pub fn iter_layers(&self) -> Result<LayerIter> {
        if !self.axes().has(Axis::Layer) {
            return Err(Error::usage(format!("iter_layers: there is no axis l in {}", self.axes())));
        }
        let plan = match self.source() {
            PlanSource::Model(_) => Acts::from_tensor(self.realize()?),
            _ => self.clone(),
        };
        Ok(LayerIter { ids: plan.layer_ids().to_vec().into_iter(), plan })
    }

    /// Computes the result into a cache file, batch by batch. An existing file is replaced once the new one is complete.
    /// If an interrupted or killed process left a partial file of the same plan, it is checked and resumed: the model runs on
    /// the rest.
    ///
    /// # Errors
    /// A failure of the model or of the disk, or another process writing the same file. No partial file is left then. After
    /// [`Error::Interrupted`] the finished samples stay in the partial file of a plan that starts from a model.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with_table(path, None)
    }

    /// As [`Acts::save`], with `table`, which has an entry for each sample of the result.
    ///
    /// # Errors
    /// As of [`Acts::save`], or a table of another number of samples.
    pub fn save_with_table(&self, path: impl AsRef<Path>, table: Option<&SampleTable>) -> Result<()> {
        let execution = self.execution()?;
        let (path, signature, fingerprint) = (path.as_ref(), self.signature().clone(), self.fingerprint()?);
        let mut writer = match self.source() {
            PlanSource::Model(_) => CacheWriter::resume(path, signature, fingerprint, table)?,
            // Copying again is cheaper than keeping a journal.
            PlanSource::Tensor(_) | PlanSource::CacheFile(_) => {
                CacheWriter::create(path, signature, fingerprint, table)?
            }
        };
        let positions = SamplePositions::of(&execution.plan.samples);
        let is_missing = |sample: &usize| !positions.of_sample(*sample).all(|position| writer.has(position));
        let missing: Vec<usize> = positions.distinct.iter().copied().filter(is_missing).collect();
        if !missing.is_empty() {
            let visited = execution.visit(&missing, &mut |numbers, tensor| {
                let wanted = numbers.iter().enumerate();
                let pairs: Vec<(usize, usize)> = wanted
                    .flat_map(|(index, number)| positions.of_sample(*number).map(move |position| (position, index)))
                    .collect();
                writer.put(&pairs, &tensor)
            });
            if let Err(error) = visited {
                if matches!(error, Error::Interrupted) {
                    writer.keep_finished()?;
                }
                return Err(error);
            }
        }
        writer.finish()
    }

    /// Computes the result once and returns a plan that starts from it: in memory, or in a file at `path`.
    ///
    /// An existing file is used if the same plan wrote it.
    ///
    /// # Errors
    /// An existing file of another plan, and the errors of [`Acts::realize`] or [`Acts::save`].
    pub fn cache(&self, path: Option<&Path>) -> Result<Acts> {
        match path {
            Some(path) => self.cache_at(path, None),
            None => Ok(Acts::from_tensor(self.realize()?)),
        }
    }

    /// As [`Acts::cache`] in a file, which gets `table` if it is written now.
    ///
    /// # Errors
    /// As of [`Acts::cache`], or an existing file with another table. A file without a table is used.
    pub fn cache_with_table(&self, path: &Path, table: &SampleTable) -> Result<Acts> {
        self.cache_at(path, Some(table))
    }

    fn cache_at(&self, path: &Path, table: Option<&SampleTable>) -> Result<Acts> {
        let exists = path.try_exists().map_err(Error::io("find", path))?;
        if exists {
            let file = CacheFile::open(path)?;
            file.check_fingerprint(&self.fingerprint()?, "plan")?;
            if let Some(table) = table {
                check_same_table(&file, table)?;
            }
        } else {
            self.save_with_table(path, table)?;
        }
        Acts::load(path)
    }
}

/// Refuses a file whose table is not `table`, and names the column.
fn check_same_table(file: &CacheFile, table: &SampleTable) -> Result<()> {
    let difference = file.sample_table()?.and_then(|own| own.difference(table));
    difference.map_or(Ok(()), |column| {
        Err(Error::file(
            file.path(),
            format!(
                "has the same tokens as the data set, but other {column}; delete it, so that it is written again, or use \
                 another path"
            ),
        ))
    })
}

/// Parts of a result in order; see [`Acts::iter_batches`].
#[derive(Debug)]
pub struct BatchIter {
    execution: Execution,
    n: usize,
    /// Samples that are computed together, a multiple of `n`.
    window: usize,
    /// First sample of the next part.
    next: usize,
    /// The last window that was computed, and its first sample.
    buffer: Option<(usize, ActTensor)>,
    /// For a model: the last position of each sample of the source in the result.
    last_use: HashMap<usize, usize>,
    /// Results of samples that occur again in a later window.
    retained: HashMap<usize, ActTensor>,
}

impl BatchIter {
    fn next_part(&mut self) -> Result<ActTensor> {
        let end = (self.next + self.n).min(self.execution.plan.samples.len());
        let (first, tensor) = match self.buffer.take() {
            Some(buffer) => buffer,
            None => (self.next, self.compute_window()?),
        };
        let last = first + tensor.signature().n_samples;
        let part = tensor.slice_batch((self.next - first) as i64..(end - first) as i64)?;
        // Windows are multiples of parts, so a window ends where a part does.
        self.buffer = (end < last).then_some((first, tensor));
        self.next = end;
        Ok(part)
    }

    fn compute_window(&mut self) -> Result<ActTensor> {
        let all = &self.execution.plan.samples;
        let end = self.next.saturating_add(self.window).min(all.len());
        let samples = &all[self.next..end];
        if self.last_use.is_empty() {
            return self.execution.tensor_of(samples);
        }
        let positions = SamplePositions::of(samples);
        let mut assembler = Assembler::new(self.execution.result.with_samples(samples.len()))?;
        let (retained, new): (Vec<usize>, Vec<usize>) =
            positions.distinct.iter().partition(|sample| self.retained.contains_key(sample));
        for sample in retained {
            if let Some(tensor) = self.retained.get(&sample) {
                positions.of_sample(sample).try_for_each(|position| assembler.put(position, tensor, 0))?;
            }
        }
        let occurs_later = |sample: &usize| self.last_use.get(sample).is_some_and(|last| *last >= end);
        self.retained.retain(|sample, _| occurs_later(sample));
        let computed = self.execution.tensor_of(&new)?;
        for (index, sample) in new.iter().enumerate() {
            positions.of_sample(*sample).try_for_each(|position| assembler.put(position, &computed, index))?;
            if occurs_later(sample) {
                self.retained.insert(*sample, computed.slice_batch(vec![index as i64])?.detached());
            }
        }
        assembler.finish()
    }
}

impl Iterator for BatchIter {
    type Item = Result<ActTensor>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.execution.plan.samples.len() {
            return None;
        }
        let part = self.next_part();
        if part.is_err() {
            self.next = self.execution.plan.samples.len();
        }
        Some(part)
    }
}

/// Layers of a result in order; see [`Acts::iter_layers`].
#[derive(Debug)]
pub struct LayerIter {
    plan: Acts,
    ids: std::vec::IntoIter<usize>,
}

impl Iterator for LayerIter {
    type Item = Result<(usize, ActTensor)>;

    fn next(&mut self) -> Option<Self::Item> {
        let id = self.ids.next()?;
        Some(self.plan.select_layer(id).and_then(|layer| layer.realize()).map(|tensor| (id, tensor)))
    }
}
