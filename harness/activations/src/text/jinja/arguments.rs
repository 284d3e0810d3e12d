//! The evaluated arguments of a call, and their assignment to parameters.

use std::sync::Arc;

use super::failure::{Failure, Outcome};
use super::value::Value;

/// The arguments of a call.
#[derive(Debug, Default)]
pub(super) struct CallArguments {
    pub(super) positional: Vec<Value>,
    pub(super) keyword: Vec<(Arc<str>, Value)>,
}

impl CallArguments {
    /// Assigns the arguments to parameters by Python's rules. A parameter with an empty name is positional only. The
    /// first `n_required` parameters must be given.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        n_required: usize,
        names: [&str; N],
    ) -> Outcome<[Option<Value>; N]> {
        let n_given = self.positional.len();
        if n_given > N {
            return Err(Failure::of_type(format!("{function} takes at most {N} arguments ({n_given} given)")));
        }
        let mut slots = [const { None }; N];
        for (slot, value) in slots.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.keyword {
            let position = names.iter().position(|known| **known == *name && !known.is_empty());
            match position.map(|position| &mut slots[position]) {
                Some(slot @ None) => *slot = Some(value),
                Some(_) => return Err(Failure::of_type(format!("{function} got two values for '{name}'"))),
                None => return Err(Failure::of_type(format!("{function} got an unexpected argument '{name}'"))),
            }
        }
        match slots[..n_required].iter().position(Option::is_none) {
            Some(missing) => {
                Err(Failure::of_type(format!("{function} is missing its argument {} {}", missing + 1, names[missing])))
            }
            None => Ok(slots),
        }
    }
}

/// The integer of an argument; `name` says which.
pub(super) fn integer(value: &Value, name: &str) -> Outcome<i128> {
    value.defined()?;
    value.as_int().ok_or_else(|| Failure::of_type(format!("{name} must be an integer, not '{}'", value.type_name())))
}

/// The integer of an argument that may be absent or `None`.
pub(super) fn optional_integer(value: Option<&Value>, name: &str) -> Outcome<Option<i128>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => integer(value, name).map(Some),
    }
}

/// A length or a width. Negative ones are 0; a text or list of more than the limit is refused where it is built.
pub(super) fn length(value: &Value, name: &str) -> Outcome<usize> {
    Ok(usize::try_from(integer(value, name)?.max(0)).unwrap_or(usize::MAX))
}

/// The text of an argument; `name` says which.
pub(super) fn text(value: &Value, name: &str) -> Outcome<Arc<str>> {
    value.defined()?;
    value
        .as_text()
        .cloned()
        .ok_or_else(|| Failure::of_type(format!("{name} must be a string, not '{}'", value.type_name())))
}
