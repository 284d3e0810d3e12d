//! The state of a rendering, which all of its steps share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use chrono::NaiveDate;

use super::failure::{Failure, Outcome};
use super::meter::Meter;
use super::syntax::NameId;
use super::value::{Function, Generator, Global, Items, Namespace, Range, Scope, Value, ViewKind};

/// Renders one template once.
#[derive(Debug)]
pub(super) struct Interpreter<'t> {
    pub(super) meter: Meter,
    /// The date of `strftime_now`.
    pub(super) today: NaiveDate,
    /// The line of the expression that is evaluated, for errors.
    pub(super) line: Cell<usize>,
    pub(super) names: &'t [Arc<str>],
    /// The global function of each name.
    globals: &'t [Option<Global>],
    namespaces: RefCell<Vec<Rc<Namespace>>>,
    captured: RefCell<Vec<Rc<Scope>>>,
    loop_name: NameId,
}

impl<'t> Interpreter<'t> {
    pub(super) fn new(names: &'t [Arc<str>], globals: &'t [Option<Global>], today: NaiveDate) -> Self {
        let (namespaces, captured) = (RefCell::default(), RefCell::default());
        let loop_name = names.iter().position(|name| **name == *"loop").map_or(NameId::MAX, |name| name as NameId);
        Interpreter { meter: Meter::new(), today, line: Cell::new(1), names, globals, namespaces, captured, loop_name }
    }

    /// The number of the name `loop`, which the parser notes for every loop.
    pub(super) fn loop_name(&self) -> NameId {
        self.loop_name
    }

    /// The number of a name that the template mentions.
    pub(super) fn name_id(&self, name: &str) -> Option<NameId> {
        self.names.iter().position(|known| **known == *name).map(|id| id as NameId)
    }

    /// The value of a variable or a global function.
    pub(super) fn variable(&self, scope: &Scope, name: NameId) -> Value {
        if let Some(value) = scope.get(name) {
            return value;
        }
        match self.globals[name as usize] {
            Some(global) => Value::Function(Rc::new(Function::Global(global))),
            None => Value::undefined(format!("'{}' is undefined", self.names[name as usize])),
        }
    }

    /// A new namespace. It stays until the rendering ends, because its attributes can refer to itself.
    pub(super) fn add_namespace(&self, namespace: Namespace) -> Value {
        let namespace = Rc::new(namespace);
        self.namespaces.borrow_mut().push(Rc::clone(&namespace));
        Value::Namespace(namespace)
    }

    /// Keeps a scope until the rendering ends, because a macro in it refers to it.
    pub(super) fn capture(&self, scope: &Rc<Scope>) {
        self.captured.borrow_mut().push(Rc::clone(scope));
    }

    /// A list of new elements.
    pub(super) fn list(&self, values: Vec<Value>) -> Outcome<Value> {
        self.meter.spend(values.len())?;
        Value::list(values)
    }

    /// The elements that iterating over a value gives.
    pub(super) fn iterate(&self, value: &Value) -> Outcome<Rc<Items>> {
        if let Value::List(items) | Value::Tuple(items) | Value::Group(items) = value {
            self.meter.spend(items.values.len())?;
            return Ok(Rc::clone(items));
        }
        let values = match value {
            Value::Undefined(_) => Vec::new(),
            Value::Text(text) | Value::Markup(text) => {
                self.meter.spend(text.len())?;
                text.chars().map(|character| Value::text(character.to_string())).collect()
            }
            Value::Dict(dict) | Value::View(ViewKind::Keys, dict) => {
                dict.entries.keys().map(|key| key.0.clone()).collect()
            }
            Value::View(ViewKind::Values, dict) => dict.entries.values().cloned().collect(),
            Value::View(ViewKind::Items, dict) => {
                let pair =
                    |(key, value): (&super::value::Key, &Value)| Value::tuple(vec![key.0.clone(), value.clone()]);
                dict.entries.iter().map(pair).collect::<Outcome<_>>()?
            }
            Value::Range(range) => Range::values(range).collect(),
            Value::Generator(generator) => Generator::rest(generator)?,
            Value::Loop(_) => return Err(Failure::unsupported("iteration over the variable 'loop'")),
            _ => return Err(Failure::of_type(format!("'{}' object is not iterable", value.type_name()))),
        };
        self.meter.spend(values.len())?;
        Items::new(values)
    }

    /// Whether a value can be iterated over.
    pub(super) fn is_iterable(value: &Value) -> bool {
        !matches!(
            value,
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Namespace(_) | Value::Function(_)
        )
    }
}

impl Drop for Interpreter<'_> {
    /// Breaks the cycles of namespaces, scopes and macros, without recursion along their chains.
    fn drop(&mut self) {
        let mut values = Vec::new();
        for namespace in self.namespaces.get_mut() {
            values.extend(namespace.attributes.borrow_mut().drain(..).map(|(_, value)| value));
        }
        for scope in self.captured.get_mut() {
            values.extend(scope.variables.borrow_mut().drain(..).map(|(_, value)| value));
        }
        drop(values);
    }
}
