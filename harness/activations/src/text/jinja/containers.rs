//! The methods of Python's dictionaries, lists, tuples and ranges that do not change them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::access::limited;
use super::arguments::{CallArguments, optional_integer};
use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::value::{Value, ViewKind};

impl Interpreter<'_> {
    pub(super) fn container_method(&self, owner: &Value, name: &str, arguments: CallArguments) -> Outcome<Value> {
        match (owner, name) {
            (Value::Dict(dict), "get") => {
                let [key, default] = arguments.bind(name, 1, ["", ""])?;
                let key = key.unwrap_or(Value::None);
                if key.is_undefined() {
                    return Ok(default.unwrap_or(Value::None));
                }
                let found = dict.entries.get(&self.key(&key)?).cloned();
                Ok(found.or(default).unwrap_or(Value::None))
            }
            (Value::Dict(dict), "items" | "keys" | "values") => {
                let [] = arguments.bind(name, 0, [])?;
                let kind = match name {
                    "items" => ViewKind::Items,
                    "keys" => ViewKind::Keys,
                    _ => ViewKind::Values,
                };
                Ok(Value::View(kind, Rc::clone(dict)))
            }
            (_, "copy") => {
                let [] = arguments.bind(name, 0, [])?;
                Ok(owner.clone())
            }
            (_, "count") => {
                let [item] = arguments.bind(name, 1, [""])?;
                let item = item.unwrap_or(Value::None);
                let mut count = 0;
                for value in &self.iterate(owner)?.values {
                    count += i128::from(self.equal(value, &item)?);
                }
                Ok(Value::Int(count))
            }
            (_, "index") => {
                let [item, start, stop] = arguments.bind(name, 1, ["", "", ""])?;
                let item = item.unwrap_or(Value::None);
                let items = self.iterate(owner)?;
                let start = optional_integer(start.as_ref(), "the start")?;
                let stop = optional_integer(stop.as_ref(), "the end")?;
                let (start, stop) = limited(start, stop, items.values.len());
                for position in start..stop {
                    if self.equal(&items.values[position], &item)? {
                        return Ok(Value::Int(position as i128));
                    }
                }
                Err(Failure::of_value("the value is not in the sequence"))
            }
            _ => Err(Failure::unsupported(format!("the method '{name}' of '{}'", owner.type_name()))),
        }
    }

    /// Sorts stably, as Python's `sorted`, by keys that are lists.
    pub(super) fn sorted(&self, mut pairs: Vec<(Vec<Value>, Value)>, reverse: bool) -> Outcome<Vec<Value>> {
        if pairs.len() > 1 {
            for (keys, _) in &pairs {
                if keys.iter().any(|key| matches!(key, Value::Float(number) if number.is_nan())) {
                    return Err(Failure::unsupported("sorting of NaN"));
                }
            }
            if reverse {
                // Equal elements keep their order.
                pairs.reverse();
            }
            pairs = self.merge_sorted(pairs)?;
            if reverse {
                pairs.reverse();
            }
        }
        Ok(pairs.into_iter().map(|(_, value)| value).collect())
    }

    /// Merge sort: the standard library's sort takes no comparison that fails.
    fn merge_sorted(&self, mut pairs: Vec<(Vec<Value>, Value)>) -> Outcome<Vec<(Vec<Value>, Value)>> {
        if pairs.len() < 2 {
            return Ok(pairs);
        }
        let right = pairs.split_off(pairs.len() / 2);
        let mut left = self.merge_sorted(pairs)?.into_iter().peekable();
        let mut right = self.merge_sorted(right)?.into_iter().peekable();
        let mut merged = Vec::with_capacity(left.len() + right.len());
        while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
            let takes_right = self.lists_ordering(b, a)? == Some(Ordering::Less);
            merged.extend(if takes_right { right.next() } else { left.next() });
        }
        merged.extend(left);
        merged.extend(right);
        Ok(merged)
    }
}
