//! Jinja2's filters of sequences.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use super::access::PathPart;
use super::arguments::{CallArguments, integer, text};
use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::syntax::Operator;
use super::value::{Generator, Items, Value, ViewKind};

fn is_true(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

impl Interpreter<'_> {
    /// Applies a filter of sequences.
    pub(super) fn sequence_filter(&self, name: &str, value: &Value, arguments: CallArguments) -> Outcome<Value> {
        match name {
            "list" => {
                let [] = arguments.bind(name, 0, [])?;
                self.iterate(value).map(Value::List)
            }
            "first" => {
                let [] = arguments.bind(name, 0, [])?;
                let first = match value {
                    Value::Generator(generator) => Generator::next(generator)?,
                    value => self.iterate(value)?.values.first().cloned(),
                };
                Ok(first.unwrap_or_else(|| Value::undefined("no first item, the sequence was empty")))
            }
            "last" => {
                let [] = arguments.bind(name, 0, [])?;
                let last = self.reversible(value)?.values.last().cloned();
                Ok(last.unwrap_or_else(|| Value::undefined("no last item, the sequence was empty")))
            }
            "reverse" => {
                let [] = arguments.bind(name, 0, [])?;
                match value {
                    Value::Text(text) | Value::Markup(text) => {
                        self.meter.build(text.len())?;
                        let reversed: String = text.chars().rev().collect();
                        Ok(super::access::like(value, &reversed))
                    }
                    Value::Generator(generator) => {
                        let mut values = Generator::rest(generator)?;
                        values.reverse();
                        self.list(values)
                    }
                    value => {
                        let values = self.reversible(value)?.values.iter().rev().cloned().collect();
                        Generator::value(values, None)
                    }
                }
            }
            "join" => {
                let [separator, attribute] = arguments.bind(name, 0, ["d", "attribute"])?;
                let separator = separator.unwrap_or_else(|| Value::text(""));
                let path = self.path_parts(&attribute.unwrap_or(Value::None))?;
                let mut parts: Vec<Arc<str>> = Vec::new();
                for item in &self.iterate(value)?.values {
                    let item = self.path(item, &path)?;
                    let part = self.to_text(&item)?;
                    self.meter.read(part.len())?;
                    parts.push(Arc::from(part));
                }
                self.join_texts(&self.to_text(&separator)?, &parts).map(Value::text)
            }
            "sort" => {
                let [reverse, sensitive, attribute] =
                    arguments.bind(name, 0, ["reverse", "case_sensitive", "attribute"])?;
                let paths = self.paths(&attribute.unwrap_or(Value::None))?;
                let sensitive = is_true(sensitive);
                let mut pairs = Vec::new();
                for item in &self.iterate(value)?.values {
                    let keys = paths.iter().map(|path| self.path(item, path).map(|key| folded(key, sensitive)));
                    pairs.push((keys.collect::<Outcome<_>>()?, item.clone()));
                }
                self.list(self.sorted(pairs, is_true(reverse))?)
            }
            "dictsort" => {
                let [sensitive, by, reverse] = arguments.bind(name, 0, ["case_sensitive", "by", "reverse"])?;
                let by = by.map_or(Ok(Arc::from("key")), |by| text(&by, "by"))?;
                let position = match &*by {
                    "key" => 0,
                    "value" => 1,
                    _ => return Err(Failure::other("dictsort can sort by key or value only")),
                };
                value.defined()?;
                let Value::Dict(dict) = value else { return Err(Failure::of_type("dictsort needs a mapping")) };
                let sensitive = is_true(sensitive);
                let items = self.iterate(&Value::View(ViewKind::Items, Rc::clone(dict)))?;
                let mut pairs = Vec::new();
                for item in &items.values {
                    let key = self.item(item, &Value::Int(position))?;
                    pairs.push((vec![folded(key, sensitive)], item.clone()));
                }
                self.list(self.sorted(pairs, is_true(reverse))?)
            }
            "unique" => {
                let [sensitive, attribute] = arguments.bind(name, 0, ["case_sensitive", "attribute"])?;
                let path = self.path_parts(&attribute.unwrap_or(Value::None))?;
                let sensitive = is_true(sensitive);
                // A key never holds a generator, the only value with inner state.
                #[allow(clippy::mutable_key_type)]
                let mut seen = HashSet::new();
                let mut values = Vec::new();
                for item in &self.iterate(value)?.values {
                    let key = self.key(&folded(self.path(item, &path)?, sensitive))?;
                    if seen.insert(key) {
                        values.push(item.clone());
                    }
                }
                Generator::value(values, None)
            }
            "min" | "max" => self.extreme(name, value, arguments),
            "sum" => {
                let [attribute, start] = arguments.bind(name, 0, ["attribute", "start"])?;
                let path = self.path_parts(&attribute.unwrap_or(Value::None))?;
                let mut sum = start.unwrap_or(Value::Int(0));
                if sum.as_text().is_some() {
                    return Err(Failure::of_type("sum() can't sum strings"));
                }
                for item in &self.iterate(value)?.values {
                    sum = self.arithmetic(Operator::Add, sum, self.path(item, &path)?)?;
                }
                Ok(sum)
            }
            "batch" => {
                let [count, fill] = arguments.bind(name, 1, ["linecount", "fill_with"])?;
                let count = integer(&count.unwrap_or(Value::None), "linecount")?;
                self.batches(value, count, fill)
            }
            "slice" => {
                let [count, fill] = arguments.bind(name, 1, ["slices", "fill_with"])?;
                let count = integer(&count.unwrap_or(Value::None), "slices")?;
                self.slices(value, count, fill)
            }
            "groupby" => self.groups(value, arguments),
            "map" => self.mapped(value, arguments),
            "select" | "reject" | "selectattr" | "rejectattr" => self.selected(name, value, arguments),
            _ => Err(Failure::other(format!("no filter named '{name}'"))),
        }
    }

    /// The elements of a value that Python's `reversed` takes.
    fn reversible(&self, value: &Value) -> Outcome<Rc<Items>> {
        match value {
            Value::Generator(_) => Err(Failure::of_type("'generator' object is not reversible")),
            value => self.iterate(value),
        }
    }

    /// The paths of a list of attributes with commas.
    fn paths(&self, attribute: &Value) -> Outcome<Vec<Vec<PathPart>>> {
        match attribute {
            Value::Text(text) => text.split(',').map(|part| self.path_parts(&Value::text(part))).collect(),
            attribute => Ok(vec![self.path_parts(attribute)?]),
        }
    }

    fn extreme(&self, name: &str, value: &Value, arguments: CallArguments) -> Outcome<Value> {
        let [sensitive, attribute] = arguments.bind(name, 0, ["case_sensitive", "attribute"])?;
        let path = self.path_parts(&attribute.unwrap_or(Value::None))?;
        let sensitive = is_true(sensitive);
        let better = if name == "min" { Ordering::Less } else { Ordering::Greater };
        let mut best: Option<(Value, Value)> = None;
        for item in &self.iterate(value)?.values {
            let key = folded(self.path(item, &path)?, sensitive);
            if matches!(key, Value::Float(number) if number.is_nan()) {
                return Err(Failure::unsupported(format!("'{name}' of NaN")));
            }
            let replaces = match &best {
                Some((known, _)) => self.ordering(&key, known)? == Some(better),
                None => true,
            };
            if replaces {
                best = Some((key, item.clone()));
            }
        }
        Ok(best.map_or_else(|| Value::undefined("no aggregated item, the sequence was empty"), |(_, item)| item))
    }

    fn batches(&self, value: &Value, count: i128, fill: Option<Value>) -> Outcome<Value> {
        let mut batches = Vec::new();
        let mut batch: Vec<Value> = Vec::new();
        for item in &self.iterate(value)?.values {
            if batch.len() as i128 == count {
                batches.push(self.list(std::mem::take(&mut batch))?);
            }
            batch.push(item.clone());
        }
        if !batch.is_empty() {
            if let Some(fill) = fill.filter(|fill| !matches!(fill, Value::None))
                && (batch.len() as i128) < count
            {
                let missing = usize::try_from(count).unwrap_or(usize::MAX) - batch.len();
                self.meter.spend(missing)?;
                batch.extend(std::iter::repeat_n(fill, missing));
            }
            batches.push(self.list(batch)?);
        }
        Generator::value(batches, None)
    }

    fn slices(&self, value: &Value, count: i128, fill: Option<Value>) -> Outcome<Value> {
        let items = self.iterate(value)?;
        if count == 0 {
            return Generator::value(Vec::new(), Some(Failure::other("division by zero")));
        }
        let count = usize::try_from(count).unwrap_or(0);
        self.meter.spend(count)?;
        let (size, n_longer) = (items.values.len() / count.max(1), items.values.len() % count.max(1));
        let mut rest = items.values.as_slice();
        let mut slices = Vec::new();
        for number in 0..count {
            let (slice, after) = rest.split_at(size + usize::from(number < n_longer));
            rest = after;
            let fill = fill.clone().filter(|fill| !matches!(fill, Value::None) && number >= n_longer);
            slices.push(Value::list(slice.iter().cloned().chain(fill).collect())?);
        }
        Generator::value(slices, None)
    }

    fn groups(&self, value: &Value, arguments: CallArguments) -> Outcome<Value> {
        let [attribute, default, sensitive] =
            arguments.bind("groupby", 1, ["attribute", "default", "case_sensitive"])?;
        let path = self.path_parts(&attribute.unwrap_or(Value::None))?;
        let default = default.filter(|default| !matches!(default, Value::None));
        let sensitive = is_true(sensitive);
        let grouper = |item: &Value| self.path_or(item, &path, default.as_ref());
        let mut pairs = Vec::new();
        for item in &self.iterate(value)?.values {
            pairs.push((vec![folded(grouper(item)?, sensitive)], item.clone()));
        }
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        for item in self.sorted(pairs, false)? {
            let key = folded(grouper(&item)?, sensitive);
            match groups.last_mut() {
                Some((last, items)) if self.equal(last, &key)? => items.push(item),
                _ => groups.push((key, vec![item])),
            }
        }
        let mut values = Vec::new();
        for (_, items) in groups {
            let key = grouper(&items[0])?;
            values.push(Value::Group(Items::new(vec![key, self.list(items)?])?));
        }
        self.list(values)
    }

    /// The attribute of a path, with a default for each undefined step.
    fn path_or(&self, item: &Value, path: &[PathPart], default: Option<&Value>) -> Outcome<Value> {
        path.iter().try_fold(item.clone(), |item, part| {
            let found = self.path(&item, std::slice::from_ref(part))?;
            Ok(match default {
                Some(default) if found.is_undefined() => default.clone(),
                _ => found,
            })
        })
    }

    /// Applies `step` to all elements. As in Jinja2, an error is raised when the result is read.
    fn lazily(&self, value: &Value, step: impl Fn(&Value) -> Outcome<Option<Value>>) -> Outcome<Value> {
        // Jinja2 passes over anything that is false, before it looks at the arguments.
        if !value.is_true() {
            return Generator::value(Vec::new(), None);
        }
        let mut values = Vec::new();
        let items = match self.iterate(value) {
            Ok(items) => items,
            Err(failure) => return Generator::value(values, Some(failure)),
        };
        for item in &items.values {
            match step(item) {
                Ok(found) => values.extend(found),
                Err(failure) => return Generator::value(values, Some(failure)),
            }
        }
        Generator::value(values, None)
    }

    fn mapped(&self, value: &Value, mut arguments: CallArguments) -> Outcome<Value> {
        if arguments.positional.is_empty() {
            let [attribute, default] = match arguments.bind("map", 0, ["attribute", "default"]) {
                Ok([Some(attribute), default]) => [Some(attribute), default],
                _ => {
                    return self.lazily(value, |_| Err(Failure::other("map requires a filter or an attribute")));
                }
            };
            let path = self.path_parts(&attribute.unwrap_or(Value::None))?;
            let default = default.filter(|default| !matches!(default, Value::None));
            return self.lazily(value, |item| self.path_or(item, &path, default.as_ref()).map(Some));
        }
        let name = arguments.positional.remove(0);
        self.lazily(value, |item| {
            let name = text(&name, "the filter of map")?;
            let CallArguments { positional, keyword } = &arguments;
            let given = CallArguments { positional: positional.clone(), keyword: keyword.clone() };
            self.meter.nested(|| self.filter(&name, item.clone(), given)).map(Some)
        })
    }

    fn selected(&self, name: &str, value: &Value, mut arguments: CallArguments) -> Outcome<Value> {
        let keeps = name.starts_with("select");
        let mut path = Vec::new();
        if name.ends_with("attr") {
            if arguments.positional.is_empty() {
                return self.lazily(value, |_| Err(Failure::other("missing parameter for attribute name")));
            }
            path = self.path_parts(&arguments.positional.remove(0))?;
        }
        let test = (!arguments.positional.is_empty()).then(|| arguments.positional.remove(0));
        self.lazily(value, |item| {
            let tested = self.path(item, &path)?;
            let holds = match &test {
                None => tested.is_true(),
                Some(test) => {
                    let test = text(test, "the test")?;
                    let CallArguments { positional, keyword } = &arguments;
                    let given = CallArguments { positional: positional.clone(), keyword: keyword.clone() };
                    self.meter.nested(|| self.test(&test, &tested, given))?
                }
            };
            Ok((holds == keeps).then(|| item.clone()))
        })
    }
}

/// A sort key: texts in small letters unless the case counts.
fn folded(key: Value, sensitive: bool) -> Value {
    match &key {
        Value::Text(text) | Value::Markup(text) if !sensitive => Value::text(text.to_lowercase()),
        _ => key,
    }
}
