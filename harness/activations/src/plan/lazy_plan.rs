//! The plan: a source and operations, not computed yet.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use actbench_kernels::{DType, PoolMethod};

use super::axes::{Axes, Axis};
use super::cache_file::CacheFile;
use super::execute::Execution;
use super::fingerprint::PlanFingerprint;
use super::logical::LogicalPlan;
use super::operation::{BatchSelection, Operation, ResultDevice};
use super::optimize::OptimizedPlan;
use super::progress::{ExtractionStats, Monitor, ProgressSink};
use super::rules::Rules;
use super::signature::Signature;
use super::sources::{ModelSource, PlanSource, TensorSource};
use super::tensor::ActTensor;
use crate::error::Result;
use crate::model::ActivationModel;
use crate::tokens::JoinedTokens;

/// Activations that are described and not computed. Building and cloning are cheap; only
/// [`realize`](Acts::realize), [`iter_batches`](Acts::iter_batches), [`iter_layers`](Acts::iter_layers),
/// [`save`](Acts::save) and [`cache`](Acts::cache) compute.
#[derive(Clone, Debug)]
pub struct Acts {
    source: PlanSource,
    operations: Vec<Operation>,
    /// The signature of the result.
    signature: Signature,
    rules: Rules,
    monitor: Monitor,
}

impl Acts {
    /// Activations of `model` on `tokens`: `[b, l, s, h]` with `layers` along `l` in the order given (one layer too:
    /// [`Acts::select_layer`] drops the axis), padded with zeros to the longest sequence of `tokens`.
    ///
    /// `tokens` may be two sets, such as the sides of a split, whose samples are run in one pass (see [`JoinedTokens`]).
    ///
    /// `batch_size` is the number of samples of a batch. With the rule `packing` a batch has as many tokens as that number
    /// of the longest samples.
    ///
    /// # Errors
    /// No layer, a layer twice or deeper than the model, batch size 0, or tokens outside the model's vocabulary.
    pub fn collect(
        model: Arc<dyn ActivationModel>,
        tokens: impl Into<JoinedTokens>,
        layers: &[usize],
        batch_size: usize,
    ) -> Result<Self> {
        let source = ModelSource::new(model, tokens, layers, batch_size)?;
        Ok(Self::from_source(PlanSource::Model(Arc::new(source))))
    }

    /// Activations in memory.
    pub fn from_tensor(tensor: ActTensor) -> Self {
        Self::from_source(PlanSource::Tensor(Arc::new(TensorSource::new(tensor))))
    }

    /// Activations in a cache file, see [`cache_file`](super::cache_file). The header is checked now, activations
    /// when they are read.
    ///
    /// # Errors
    /// The file cannot be read, is not a cache file, or is incomplete.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::from_source(PlanSource::CacheFile(Arc::new(CacheFile::open(path.as_ref())?))))
    }

    fn from_source(source: PlanSource) -> Self {
        let signature = source.signature().clone();
        Acts { source, operations: Vec::new(), signature, rules: Rules::all(), monitor: Monitor::default() }
    }

    /// The plan followed by `operation`.
    ///
    /// # Errors
    /// When the operation does not fit; see [`Signature::after`].
    pub fn then(&self, operation: Operation) -> Result<Self> {
        let signature = self.signature.after(&operation)?;
        let mut plan = self.clone();
        plan.signature = signature;
        plan.operations.push(operation);
        Ok(plan)
    }

    /// Keeps these layers, by number (never by position) and in this order; axis `l` stays. Numbers must be distinct.
    ///
    /// # Errors
    /// No axis `l`, an unknown layer, a layer twice, or none.
    pub fn select_layers(&self, ids: &[usize]) -> Result<Self> {
        self.then(Operation::SelectLayers(ids.into()))
    }

    /// Keeps one layer, by number, and drops axis `l`.
    ///
    /// # Errors
    /// No axis `l`, or an unknown layer.
    pub fn select_layer(&self, id: usize) -> Result<Self> {
        self.then(Operation::SelectLayer(id))
    }

    /// Keeps some samples: a range or indices, negative ones from the end; an index may be repeated. The extent of axis `s`
    /// stays.
    ///
    /// # Errors
    /// A number outside the batch, or a range that ends before it starts.
    pub fn slice_batch(&self, selection: impl Into<BatchSelection>) -> Result<Self> {
        self.then(Operation::SliceBatch(selection.into()))
    }

    /// Pools the masked positions (`s`) or the layers in their order (`l`) to one vector.
    ///
    /// # Errors
    /// Another axis, one that the activations do not have, or `s` without a mask.
    pub fn pool(&self, method: PoolMethod, axis: Axis) -> Result<Self> {
        self.then(Operation::Pool { method, axis })
    }

    /// [`Acts::pool`] by the mean.
    ///
    /// # Errors
    /// As for [`Acts::pool`].
    pub fn mean_pool(&self, axis: Axis) -> Result<Self> {
        self.pool(PoolMethod::Mean, axis)
    }

    /// [`Acts::pool`] by the elementwise maximum.
    ///
    /// # Errors
    /// As for [`Acts::pool`].
    pub fn max_pool(&self, axis: Axis) -> Result<Self> {
        self.pool(PoolMethod::Max, axis)
    }

    /// [`Acts::pool`] by the last masked position, or the last layer.
    ///
    /// # Errors
    /// As for [`Acts::pool`].
    pub fn last_pool(&self, axis: Axis) -> Result<Self> {
        self.pool(PoolMethod::Last, axis)
    }

    /// [`Acts::pool`] by the sum.
    ///
    /// # Errors
    /// As for [`Acts::pool`].
    pub fn sum_pool(&self, axis: Axis) -> Result<Self> {
        self.pool(PoolMethod::Sum, axis)
    }

    /// Rounds every element to `dtype`. A pool before a cast rounds to the type before it, a pool after it to the
    /// type after it: the two orders differ in their bits and each is kept.
    ///
    /// # Errors
    /// When the result would be too large to address.
    pub fn cast(&self, dtype: DType) -> Result<Self> {
        self.then(Operation::Cast(dtype))
    }

    /// Names the memory of the result, which can only be host memory. It does not decide where the model runs.
    ///
    /// # Errors
    /// Any other device.
    pub fn to(&self, device: ResultDevice) -> Result<Self> {
        self.then(Operation::To(device))
    }

    /// The plan with these rules. No rule changes a bit of the result.
    pub fn with_rules(&self, rules: Rules) -> Self {
        Acts { rules, ..self.clone() }
    }

    /// The plan with batches that fill a device, if `filled`: where the model runs on one and the rule `packing` is on, batches
    /// have at least as many tokens as keep it busy (see [`ActivationModel::filled_batch_tokens`]), up to its free memory. In
    /// host memory batches stay as they are. No bit of the result depends on it.
    pub fn with_filled_batches(&self, filled: bool) -> Self {
        let source = match &self.source {
            PlanSource::Model(source) => PlanSource::Model(Arc::new(source.with_filled_batches(filled))),
            other => other.clone(),
        };
        Acts { source, ..self.clone() }
    }

    /// The plan with a receiver of progress. Its counters start at zero, and an interrupt has to be set again.
    pub fn with_progress(&self, sink: ProgressSink) -> Self {
        Acts { monitor: Monitor::reporting_to(Some(sink)), ..self.clone() }
    }

    /// The plan with an interrupt: it fails with [`Error::Interrupted`](crate::Error::Interrupted) between batches once
    /// `interrupted` returns true. Call it after [`with_progress`](Acts::with_progress), which removes it.
    pub fn with_interrupt(&self, interrupted: fn() -> bool) -> Self {
        Acts { monitor: self.monitor.clone().with_interrupt(interrupted), ..self.clone() }
    }

    /// Axes, extents, layers and dtype of the result.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The axes of the result.
    pub fn axes(&self) -> Axes {
        self.signature.axes
    }

    /// The extents of the result's axes, in order.
    pub fn shape(&self) -> Vec<usize> {
        self.signature.shape()
    }

    /// The storage type of the result.
    pub fn dtype(&self) -> DType {
        self.signature.dtype
    }

    /// The layers along `l`, or those that the result is made of.
    pub fn layer_ids(&self) -> &[usize] {
        &self.signature.layer_ids
    }

    /// The source.
    pub fn source(&self) -> &PlanSource {
        &self.source
    }

    /// The operations, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The rules that are on.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Counters of this plan, shared with the plans it was built from and those built from it.
    pub fn stats(&self) -> ExtractionStats {
        self.monitor.stats()
    }

    /// The plan in normal form.
    ///
    /// # Errors
    /// None in practice: each operation was checked when it was added.
    pub fn logical(&self) -> Result<LogicalPlan> {
        LogicalPlan::of(self.source.signature(), &self.operations)
    }

    /// The plan as the optimizer rewrites it.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn optimized(&self) -> Result<OptimizedPlan> {
        Ok(OptimizedPlan::of(self.source.signature(), &self.logical()?, self.rules))
    }

    /// The fingerprint of the result. Plans that differ only in how they are written, such as in the order of selections,
    /// have the same.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn fingerprint(&self) -> Result<PlanFingerprint> {
        let logical = self.logical()?;
        let mut fingerprint = self.source.fingerprint(&logical.samples);
        let before = fingerprint.get("pool").filter(|pool| *pool != "none").map(str::to_owned);
        let chain = match (before, &logical.values[..]) {
            (None, _) => logical.value_chain(),
            (Some(before), []) => before,
            (Some(before), _) => format!("{before} {}", logical.value_chain()),
        };
        fingerprint.set("pool", chain);
        let layers: Vec<String> = logical.layers.iter().map(usize::to_string).collect();
        fingerprint.set("layers", layers.join(","));
        fingerprint.set("dtype", self.signature.dtype.name());
        fingerprint.set("shape", format!("{} {:?}", self.signature.axes, self.signature.shape()));
        Ok(fingerprint)
    }

    /// The plan, ready to be executed.
    pub(super) fn execution(&self) -> Result<Execution> {
        Ok(Execution {
            source: self.source.clone(),
            plan: self.optimized()?,
            result: self.signature.clone(),
            monitor: self.monitor.clone(),
        })
    }
}

impl fmt::Display for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.signature)?;
        write!(f, "  {}", self.source.describe())?;
        self.operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}
