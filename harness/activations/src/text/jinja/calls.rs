//! Calls of macros, global functions and methods.

use std::cell::Cell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use chrono::NaiveTime;
use indexmap::IndexMap;

use super::arguments::{CallArguments, integer};
use super::failure::{Failure, FailureKind, Outcome};
use super::interpreter::Interpreter;
use super::syntax::Macro;
use super::value::{Function, Global, Items, Key, LoopState, Namespace, Range, Scope, Value};

/// The maximum length of a range in Jinja2's sandbox.
const MAX_RANGE: usize = 100_000;

/// The letters of `strftime` for which Python and chrono agree in the C locale, without those that depend on a time
/// zone.
const DIRECTIVES: &str = "aAbBcdDeFGgHhIjklmMnpPrRsStTuUVwWxXyYC%";

impl Interpreter<'_> {
    /// Calls a value.
    pub(super) fn call(&self, value: &Value, arguments: CallArguments) -> Outcome<Value> {
        value.defined()?;
        let function = match value {
            Value::Function(function) => function,
            Value::Loop(state) => {
                let [items] = arguments.bind("loop()", 1, [""])?;
                return self.call_loop(state, &items.unwrap_or(Value::None));
            }
            _ => return Err(Failure::of_type(format!("'{}' object is not callable", value.type_name()))),
        };
        match &**function {
            Function::Global(global) => self.call_global(*global, arguments),
            Function::Method(owner, name) => self.call_method(owner, name, arguments),
            Function::Macro(definition, scope) => self.meter.nested(|| self.call_macro(definition, scope, arguments)),
            Function::Joiner(separator, used) => {
                let [] = arguments.bind("joiner()", 0, [])?;
                Ok(if used.replace(true) { Value::Text(Arc::clone(separator)) } else { Value::text("") })
            }
            Function::Cycler(..) => Err(Failure::of_type("'Cycler' object is not callable")),
        }
    }

    /// Calls a method of a Python object.
    pub(super) fn call_method(&self, owner: &Value, name: &str, arguments: CallArguments) -> Outcome<Value> {
        match owner {
            Value::Text(text) => self.text_method(text, name, arguments),
            Value::Markup(text) => self.markup_method(text, name, arguments),
            Value::Loop(state) => self.loop_method(state, name, arguments),
            Value::Function(function) => match &**function {
                Function::Cycler(items, position) => {
                    let [] = arguments.bind("a method of cycler", 0, [])?;
                    let current = position.get();
                    if name == "reset" {
                        position.set(0);
                        return Ok(Value::None);
                    }
                    position.set((current + 1) % items.values.len());
                    Ok(items.values[current].clone())
                }
                _ => Err(Failure::other("no such method")),
            },
            _ => self.container_method(owner, name, arguments),
        }
    }

    fn loop_method(&self, state: &LoopState, name: &str, arguments: CallArguments) -> Outcome<Value> {
        if !arguments.keyword.is_empty() {
            return Err(Failure::of_type(format!("loop.{name}() takes no keyword arguments")));
        }
        if name == "cycle" {
            let n_values = arguments.positional.len();
            if n_values == 0 {
                return Err(Failure::of_type("no items for cycling given"));
            }
            return Ok(arguments.positional[state.index0.get() % n_values].clone());
        }
        if !arguments.positional.iter().all(Value::is_plain) {
            return Err(Failure::unsupported("'loop.changed' of nested values"));
        }
        let now = Items::new(arguments.positional)?;
        let before = state.last_changed.borrow().clone();
        let same = match &before {
            Some(before) => self.all_equal(&before.values, &now.values)?,
            None => false,
        };
        if !same {
            state.last_changed.replace(Some(now));
        }
        Ok(Value::Bool(!same))
    }

    fn call_macro(&self, definition: &Macro, parent: &Rc<Scope>, arguments: CallArguments) -> Outcome<Value> {
        let CallArguments { mut positional, mut keyword } = arguments;
        let scope = Scope::new(Some(parent));
        let mut take = |name: &str| {
            let position = keyword.iter().position(|(known, _)| **known == *name)?;
            Some(keyword.remove(position).1)
        };
        let name = |id: super::syntax::NameId| &*self.names[id as usize];
        let more = positional.split_off(positional.len().min(definition.parameters.len()));
        let mut given: Vec<Option<Value>> = positional.into_iter().map(Some).collect();
        for (id, _) in &definition.parameters[given.len()..] {
            given.push(take(name(*id)));
        }
        if definition.uses_caller
            && let Some(id) = self.name_id("caller")
        {
            scope.set(id, take("caller").unwrap_or_else(|| Value::undefined("no caller defined")));
        }
        if definition.uses_kwargs {
            let entries = keyword.into_iter().map(|(name, value)| (Key(Value::Text(name)), value)).collect();
            if let Some(id) = self.name_id("kwargs") {
                scope.set(id, Value::dict(entries)?);
            }
        } else if let Some((unknown, _)) = keyword.first() {
            return Err(Failure::of_type(format!("macro '{}' takes no keyword argument '{unknown}'", definition.name)));
        }
        if definition.uses_varargs {
            if let Some(id) = self.name_id("varargs") {
                scope.set(id, Value::tuple(more)?);
            }
        } else if !more.is_empty() {
            let count = definition.parameters.len();
            return Err(Failure::of_type(format!("macro '{}' takes at most {count} arguments", definition.name)));
        }
        // Parameters that are not given yet hide variables of the same name outside.
        for ((id, _), value) in definition.parameters.iter().zip(&given) {
            let unset = || Value::undefined(format!("parameter '{}' was not provided", name(*id)));
            scope.set(*id, value.clone().unwrap_or_else(unset));
        }
        for ((id, default), value) in definition.parameters.iter().zip(given) {
            if let (None, Some(default)) = (value, default) {
                scope.set(*id, self.evaluate(default, &scope)?);
            }
        }
        let mut text = String::new();
        self.execute(&definition.body, &scope, &mut text)?;
        Ok(Value::text(text))
    }

    fn call_global(&self, global: Global, arguments: CallArguments) -> Outcome<Value> {
        match global {
            Global::Range => Self::range(arguments),
            Global::Dict => Value::dict(self.dict_entries(arguments)?),
            Global::Namespace => {
                let namespace = Namespace { attributes: Default::default() };
                for (key, value) in self.dict_entries(arguments)? {
                    let Value::Text(name) = &key.0 else {
                        return Err(Failure::unsupported("a namespace attribute whose name is not a string"));
                    };
                    self.set_attribute(&namespace, name, value)?;
                }
                Ok(self.add_namespace(namespace))
            }
            Global::Cycler => {
                if arguments.positional.is_empty() || !arguments.keyword.is_empty() {
                    return Err(Failure::other("cycler() needs at least one item"));
                }
                let items = Items::new(arguments.positional)?;
                Ok(Value::Function(Rc::new(Function::Cycler(items, Cell::new(0)))))
            }
            Global::Joiner => {
                let [separator] = arguments.bind("joiner()", 0, ["sep"])?;
                let separator = match separator {
                    None => Arc::from(", "),
                    Some(Value::Text(text)) => text,
                    Some(_) => return Err(Failure::unsupported("a separator of joiner() that is not a string")),
                };
                Ok(Value::Function(Rc::new(Function::Joiner(separator, Cell::new(false)))))
            }
            Global::Lipsum => Err(Failure::unsupported("the function 'lipsum', which is random,")),
            Global::RaiseException => {
                let [message] = arguments.bind("raise_exception()", 1, ["message"])?;
                let message = message.unwrap_or(Value::None);
                let message = self.to_text(&message)?;
                Err(Failure::new(FailureKind::Raised, message))
            }
            Global::StrftimeNow => {
                let [format] = arguments.bind("strftime_now()", 1, ["format"])?;
                let format = super::arguments::text(&format.unwrap_or(Value::None), "the format of strftime_now()")?;
                self.meter.build(format.len().saturating_mul(16))?;
                self.strftime(&format)
            }
        }
    }

    fn strftime(&self, format: &str) -> Outcome<Value> {
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                continue;
            }
            let directive = characters.next().and_then(|next| if next == '-' { characters.next() } else { Some(next) });
            if !directive.is_some_and(|directive| DIRECTIVES.contains(directive)) {
                return Err(Failure::unsupported(format!("a directive of strftime_now({format:?})")));
            }
        }
        let mut text = String::new();
        // Not `to_string`, which panics on an unknown directive.
        write!(text, "{}", self.today.and_time(NaiveTime::MIN).format(format))
            .map_err(|_| Failure::unsupported(format!("a directive of strftime_now({format:?})")))?;
        Ok(Value::text(text))
    }

    fn range(arguments: CallArguments) -> Outcome<Value> {
        let [first, second, step] = arguments.bind("range()", 1, ["", "", ""])?;
        let first = integer(&first.unwrap_or(Value::None), "an argument of range()")?;
        let (start, stop) = match second {
            None => (0, first),
            Some(stop) => (first, integer(&stop, "an argument of range()")?),
        };
        let step = step.map_or(Ok(1), |step| integer(&step, "an argument of range()"))?;
        if step == 0 {
            return Err(Failure::of_value("range() arg 3 must not be zero"));
        }
        let small = |number: i128| number.unsigned_abs() < 1 << 100;
        if !small(start) || !small(stop) || !small(step) {
            return Err(Failure::unsupported("a range beyond 2^100"));
        }
        let range = Range { start, stop, step };
        if range.len() > MAX_RANGE {
            return Err(Failure::other(format!("range too big: the sandbox blocks more than {MAX_RANGE} elements")));
        }
        Ok(Value::Range(range))
    }

    /// The entries that Python's `dict` makes of its arguments.
    fn dict_entries(&self, mut arguments: CallArguments) -> Outcome<IndexMap<Key, Value>> {
        let keyword = std::mem::take(&mut arguments.keyword);
        let [given] = arguments.bind("dict()", 0, [""])?;
        let mut entries = IndexMap::new();
        match given {
            None => {}
            Some(Value::Dict(dict)) => {
                self.meter.spend(dict.entries.len())?;
                entries.extend(dict.entries.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            Some(pairs) => {
                pairs.defined()?;
                for pair in &self.iterate(&pairs)?.values {
                    let pair = self.iterate(pair)?;
                    let [key, value] = pair.values.as_slice() else {
                        return Err(Failure::of_value("dict() needs pairs of a key and a value"));
                    };
                    entries.insert(self.key(key)?, value.clone());
                }
            }
        }
        entries.extend(keyword.into_iter().map(|(name, value)| (Key(Value::Text(name)), value)));
        Ok(entries)
    }
}
