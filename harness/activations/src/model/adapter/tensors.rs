//! Which tensor of the base model each tensor of an adapter changes: names, shapes and completeness.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::spec::DecoderSpec;
use super::super::tensor_names::TensorNames;
use super::super::tensor_shapes::computed_tensors;
use super::super::tensors::embedding_name;
use super::super::weights::Weights;
use super::config::AdapterConfig;
use super::merge::{AdapterTensor, LowRankUpdate, TensorChange, extents};
use super::names::{TensorRole, parse};
use crate::error::{Error, Result};

/// The tensors of one module, by role.
type ModuleTensors = BTreeMap<TensorRole, AdapterTensor>;

/// The place of an adapter's module in the model.
enum ModulePlace {
    /// A module of the embedding or of a block, by the name that transformers gives it.
    Computed(String),
    /// The final norm, the LM head, or a module of another part of the model: activations do not depend on it.
    Unused,
}

/// The base model, and the file for errors.
struct BaseModel<'a> {
    spec: &'a DecoderSpec,
    weights: &'a Weights,
    /// The shapes of the tensors of the embedding and of all blocks.
    shapes: BTreeMap<String, Vec<usize>>,
    /// The safetensors file of the adapter, for errors.
    path: &'a Path,
}

/// The changes of an adapter.
pub(super) struct FoundChanges {
    /// The changes by the name that transformers gives the tensor.
    pub(super) changes: BTreeMap<String, TensorChange>,
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
}

/// Finds the tensor that each of `tensors`, those of the file `path`, changes.
///
/// # Errors
/// A tensor that does not fit the base model or the configuration, or a target without tensors.
pub(super) fn find_changes(
    tensors: BTreeMap<String, AdapterTensor>,
    path: &Path,
    config: &AdapterConfig,
    spec: &DecoderSpec,
    weights: &Weights,
) -> Result<FoundChanges> {
    let base = BaseModel { spec, weights, shapes: computed_tensors(spec), path };
    let mut changes = BTreeMap::new();
    // The computed modules that have factors, and the part of the file's names before the number of a block.
    let (mut adapted, mut prefix): (BTreeSet<String>, Option<String>) = (BTreeSet::new(), None);
    let mut has_unused_blocks = false;
    for (module, tensors) in base.by_module(tensors)? {
        check_targets(&module, &tensors, config).map_err(|what| Error::file(path, what))?;
        let place = base.place(&module)?;
        let update = base.update(&module, &place, &tensors, config)?;
        let ModulePlace::Computed(name) = place else {
            has_unused_blocks |= has_number(&module);
            continue;
        };
        if let Some(in_block) = name.strip_prefix(spec.names.blocks).filter(|_| update.is_some()) {
            prefix = prefix.or_else(|| module.strip_suffix(in_block).map(str::to_owned));
        }
        if update.is_some() {
            adapted.insert(name.clone());
        }
        let is_embedding = format!("{name}.weight") == spec.names.embedding;
        let weight_name =
            if is_embedding { embedding_name(spec, weights).to_owned() } else { format!("{name}.weight") };
        let replacement = base.replacement(&name, TensorRole::Weight, &tensors)?;
        let bias = base.replacement(&name, TensorRole::Bias, &tensors)?;
        let of_weight = TensorChange { replacement, update };
        let of_bias = TensorChange { replacement: bias, update: None };
        for (tensor, change) in [(weight_name, of_weight), (format!("{name}.bias"), of_bias)] {
            if change.is_empty() {
                continue;
            }
            if changes.insert(tensor, change).is_some() {
                return Err(base.refuse(format!("has tensors of '{name}' under two names; save the adapter again")));
            }
        }
    }
    let mut warnings = Vec::new();
    if changes.is_empty() {
        if has_unused_blocks {
            let family = spec.family;
            return Err(base.refuse(format!(
                "none of its tensors belongs to a block of this model, a {family}: the adapter is of another model"
            )));
        }
        warnings.push("the adapter changes no tensor that activations depend on".to_owned());
    }
    base.check_complete(&adapted, prefix.as_deref().unwrap_or(spec.names.blocks), config)?;
    Ok(FoundChanges { changes, warnings })
}

impl BaseModel<'_> {
    fn refuse(&self, what: String) -> Error {
        Error::file(self.path, what)
    }

    /// The tensors by the name of their module in the file.
    fn by_module(&self, tensors: BTreeMap<String, AdapterTensor>) -> Result<BTreeMap<String, ModuleTensors>> {
        let mut modules: BTreeMap<String, ModuleTensors> = BTreeMap::new();
        for (stored, tensor) in tensors {
            let (module, role) = parse(&stored).map_err(|what| self.refuse(format!("tensor '{stored}' {what}")))?;
            if let Some(first) = modules.entry(module.to_owned()).or_default().insert(role, tensor) {
                let first = first.stored;
                return Err(self.refuse(format!(
                    "tensors '{first}' and '{stored}' have the same place in the model: save one adapter without the other"
                )));
            }
        }
        if modules.is_empty() {
            return Err(self.refuse("has no tensors".to_owned()));
        }
        Ok(modules)
    }

    /// The place of `module`, whose name may lack or have the prefixes that names in model files may lack or have.
    fn place(&self, module: &str) -> Result<ModulePlace> {
        let candidates = candidates(module, &self.spec.names);
        for name in &candidates {
            if self.shapes.contains_key(&format!("{name}.weight")) {
                return Ok(ModulePlace::Computed(name.clone()));
            }
        }
        let (family, n_layers) = (self.spec.family, self.spec.n_layers);
        for name in candidates {
            let in_block = name.strip_prefix(self.spec.names.blocks).and_then(|rest| rest.split_once('.'));
            let Some(block) = in_block.and_then(|(block, _)| block.parse::<usize>().ok()) else { continue };
            if block >= n_layers {
                return Err(self.refuse(format!(
                    "has tensors of '{module}', but the model has {n_layers} blocks: the adapter is of another model"
                )));
            }
            return Err(
                self.refuse(format!("has tensors of '{module}', which a {family} of this config.json does not have"))
            );
        }
        Ok(ModulePlace::Unused)
    }

    /// The low-rank update of a module, if it has one.
    fn update(
        &self,
        module: &str,
        place: &ModulePlace,
        tensors: &ModuleTensors,
        config: &AdapterConfig,
    ) -> Result<Option<LowRankUpdate>> {
        let pair = |first: TensorRole, second: TensorRole| (tensors.get(&first), tensors.get(&second));
        let of_projection = pair(TensorRole::FirstFactor, TensorRole::SecondFactor);
        let of_embedding = pair(TensorRole::FirstOfEmbedding, TensorRole::SecondOfEmbedding);
        let (a, b, is_embedding) = match (of_projection, of_embedding) {
            ((None, None), (None, None)) => return Ok(None),
            ((Some(a), Some(b)), (None, None)) => (a, b, false),
            ((None, None), (Some(a), Some(b))) => (a, b, true),
            ((a, b), (embedding_a, embedding_b)) => {
                let some = [a, b, embedding_a, embedding_b].into_iter().flatten().map(|tensor| tensor.stored.as_str());
                let names = some.collect::<Vec<_>>().join("', '");
                return Err(self.refuse(format!(
                    "'{module}' needs two factors of one kind and has '{names}'; save the adapter again"
                )));
            }
        };
        let rank = config.rank(module);
        let ((a_rows, inputs), (outputs, b_columns)) = (extents(&a.tensor), extents(&b.tensor));
        if (a_rows, b_columns) != (rank, rank) {
            return Err(self.refuse(format!(
                "tensors '{}' {:?} and '{}' {:?} are not of the rank {rank} that adapter_config.json has for '{module}'",
                a.stored,
                a.tensor.shape(),
                b.stored,
                b.tensor.shape()
            )));
        }
        let ModulePlace::Computed(name) = place else { return Ok(None) };
        let shape = self.shapes.get(&format!("{name}.weight")).map(Vec::as_slice).unwrap_or_default();
        if is_embedding != self.is_table(name) {
            let (kind, other) =
                if is_embedding { ("an embedding", "a projection") } else { ("a projection", "an embedding") };
            return Err(
                self.refuse(format!("'{}' has the form of the factor of {kind}, but '{module}' is {other}", a.stored))
            );
        }
        let transposed = is_embedding || self.spec.names.transposed;
        let merged = if transposed { [inputs, outputs] } else { [outputs, inputs] };
        if shape != merged {
            return Err(self.refuse(format!(
                "'{}' {:?} and '{}' {:?} change a tensor of shape {merged:?}, but '{name}.weight' has {shape:?}: the adapter is \
                 of another model",
                a.stored,
                a.tensor.shape(),
                b.stored,
                b.tensor.shape()
            )));
        }
        let scale = config.scale(module);
        if !scale.is_finite() {
            return Err(
                self.refuse(format!("the scale of '{module}' by adapter_config.json is {scale}, but must be finite"))
            );
        }
        Ok(Some(LowRankUpdate { a: a.clone(), b: b.clone(), scale, transposed }))
    }

    /// The tensor that replaces the weight or the bias of the module `name`, if there is one.
    fn replacement(&self, name: &str, role: TensorRole, tensors: &ModuleTensors) -> Result<Option<AdapterTensor>> {
        let Some(tensor) = tensors.get(&role) else { return Ok(None) };
        let part = if role == TensorRole::Bias { "bias" } else { "weight" };
        let (found, stored) = (tensor.tensor.shape(), &tensor.stored);
        match self.shapes.get(&format!("{name}.{part}")) {
            Some(shape) if shape == found => Ok(Some(tensor.clone())),
            Some(shape) => Err(self
                .refuse(format!("tensor '{stored}' has shape {found:?}, the model's '{name}.{part}' has {shape:?}"))),
            None => Err(self.refuse(format!(
                "tensor '{stored}' replaces '{name}.{part}', which a {} of this config.json does not have",
                self.spec.family
            ))),
        }
    }

    /// Whether the module `name` is the embedding or the table of positions.
    fn is_table(&self, name: &str) -> bool {
        let weight = format!("{name}.weight");
        weight == self.spec.names.embedding || self.spec.names.positions == Some(weight.as_str())
    }

    /// Checks that each target among the matrices of the blocks, and the embedding, has factors. `prefix` stands before the number
    /// of a block in the file.
    fn check_complete(&self, adapted: &BTreeSet<String>, prefix: &str, config: &AdapterConfig) -> Result<()> {
        for (tensor, shape) in &self.shapes {
            let Some(name) = tensor.strip_suffix(".weight").filter(|_| shape.len() == 2) else { continue };
            let module = match name.strip_prefix(self.spec.names.blocks) {
                Some(in_block) => format!("{prefix}{in_block}"),
                None => name.to_owned(),
            };
            let is_target = config.targets.selects(&module) == Some(true) && !config.saves(&module);
            // A tensor that the files lack is reported when the block is checked.
            if is_target && !adapted.contains(name) && self.weights.contains(tensor) {
                return Err(self.refuse(format!(
                    "has no factors for '{module}', which is a target of adapter_config.json; download the adapter again"
                )));
            }
        }
        Ok(())
    }
}

/// The names that `module` of the file may have in transformers.
fn candidates(module: &str, names: &TensorNames) -> Vec<String> {
    let aliased = names.aliases.iter().find_map(|(from, to)| Some(format!("{to}{}", module.strip_prefix(*from)?)));
    let without_base = module.strip_prefix(names.base).filter(|_| !names.base.is_empty()).map(str::to_owned);
    let mut found = vec![module.to_owned()];
    found.extend(aliased);
    found.push(format!("{}{module}", names.base));
    found.extend(without_base);
    found
}

/// Checks the tensors of a module against the targets of the configuration.
fn check_targets(module: &str, tensors: &ModuleTensors, config: &AdapterConfig) -> Result<(), String> {
    for (role, tensor) in tensors {
        let stored = &tensor.stored;
        match role {
            TensorRole::Weight => {
                // PEFT also saves embeddings and heads that an adapter changed or a longer vocabulary lengthened.
                if has_number(module) && !config.saves(module) {
                    return Err(format!(
                        "tensor '{stored}' replaces a weight that modules_to_save of adapter_config.json does not name"
                    ));
                }
            }
            TensorRole::Bias => {
                if !config.has_biases && !config.saves(module) {
                    return Err(format!("tensor '{stored}' is a bias, but adapter_config.json has no trained biases"));
                }
            }
            _ => {
                if config.targets.selects(module) == Some(false) {
                    return Err(format!("tensor '{stored}' is not of a target of adapter_config.json"));
                }
            }
        }
    }
    Ok(())
}

/// Whether a part of the name `module` is a number, as in the name of a block.
fn has_number(module: &str) -> bool {
    module.split('.').any(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}
