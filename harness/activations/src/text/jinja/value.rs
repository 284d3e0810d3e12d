//! The Python values that a template computes with.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::failure::{Failure, FailureKind, Outcome};
use super::syntax::{Literal, Macro, NameId};

/// The maximum nesting of lists and dictionaries. It bounds the recursion of printing, comparing and freeing them.
const MAX_NESTING: usize = 128;

/// A Python value. Lists and dictionaries never change: the sandbox of transformers forbids it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Jinja2's `Undefined`, with the message of the error that most uses of it raise.
    Undefined(Arc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    /// Text that needs no HTML escapes: MarkupSafe's `Markup`.
    Markup(Arc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    /// The tuple that `groupby` makes, with the attributes `grouper` and `list`.
    Group(Rc<Items>),
    Dict(Rc<Dict>),
    View(ViewKind, Rc<Dict>),
    Range(Range),
    Generator(Rc<Generator>),
    Namespace(Rc<Namespace>),
    Function(Rc<Function>),
    Loop(Rc<LoopState>),
}

/// The elements of a list or a tuple.
#[derive(Debug)]
pub(super) struct Items {
    pub(super) values: Vec<Value>,
    nesting: usize,
}

impl Items {
    pub(super) fn new(values: Vec<Value>) -> Outcome<Rc<Items>> {
        let nesting = one_deeper(values.iter())?;
        Ok(Rc::new(Items { values, nesting }))
    }
}

/// The nesting of a container of `values`.
fn one_deeper<'v>(values: impl Iterator<Item = &'v Value>) -> Outcome<usize> {
    let mut nesting = 1;
    for value in values {
        if matches!(value, Value::Loop(_)) {
            // It knows its scope, so chains of such lists would have no bound.
            return Err(Failure::unsupported("the variable 'loop' inside of another value"));
        }
        nesting = nesting.max(1 + value.nesting());
    }
    if nesting > MAX_NESTING {
        return Err(Failure::limit(format!("its lists and mappings are nested more than {MAX_NESTING} deep")));
    }
    Ok(nesting)
}

/// A dictionary in the order of insertion.
#[derive(Debug)]
pub(super) struct Dict {
    pub(super) entries: IndexMap<Key, Value>,
    nesting: usize,
}

impl Dict {
    pub(super) fn new(entries: IndexMap<Key, Value>) -> Outcome<Rc<Dict>> {
        let nesting = one_deeper(entries.values())?;
        Ok(Rc::new(Dict { entries, nesting }))
    }

    /// The value of the text `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(&TextKey(key))
    }
}

/// A hashable value. Equal numbers of different types are one key, as in Python.
#[derive(Clone, Debug)]
pub(super) struct Key(pub(super) Value);

impl Key {
    /// The key of `value`.
    ///
    /// # Errors
    /// The value is not hashable.
    pub(super) fn new(value: &Value) -> Outcome<Key> {
        match value {
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Text(_) => Ok(Key(value.clone())),
            Value::Markup(text) => Ok(Key(Value::Text(Arc::clone(text)))),
            Value::Float(number) if !number.is_nan() => Ok(Key(value.clone())),
            Value::Tuple(items) => {
                items.values.iter().try_for_each(|item| Key::new(item).map(drop))?;
                Ok(Key(value.clone()))
            }
            Value::List(_) | Value::Dict(_) | Value::View(..) => {
                Err(Failure::of_type(format!("unhashable type: '{}'", value.type_name())))
            }
            _ => Err(Failure::unsupported(format!("a key of type '{}'", value.type_name()))),
        }
    }
}

/// The integer that the number equals, if any.
fn whole(number: f64) -> Option<i128> {
    // Beyond 2^126 a float is a key of its own: integers of that size do not occur as keys.
    (number.fract() == 0.0 && number.abs() < 8.5e37).then_some(number as i128)
}

fn same_key(a: &Value, b: &Value) -> bool {
    let integer = |value: &Value| match value {
        Value::Bool(flag) => Some(i128::from(*flag)),
        Value::Int(number) => Some(*number),
        Value::Float(number) => whole(*number),
        _ => None,
    };
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Tuple(a), Value::Tuple(b)) => {
            a.values.len() == b.values.len() && a.values.iter().zip(&b.values).all(|(a, b)| same_key(a, b))
        }
        _ => match (integer(a), integer(b)) {
            (Some(a), Some(b)) => a == b,
            (None, None) => matches!((a, b), (Value::Float(a), Value::Float(b)) if a == b),
            _ => false,
        },
    }
}

fn hash_key<H: Hasher>(value: &Value, state: &mut H) {
    match value {
        Value::Bool(flag) => i128::from(*flag).hash(state),
        Value::Int(number) => number.hash(state),
        Value::Float(number) => match whole(*number) {
            Some(number) => number.hash(state),
            None => number.to_bits().hash(state),
        },
        Value::Text(text) => text.as_bytes().hash(state),
        Value::Tuple(items) => items.values.iter().for_each(|item| hash_key(item, state)),
        _ => {}
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        same_key(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_key(&self.0, state);
    }
}

/// Looks a text up without an allocation.
struct TextKey<'t>(&'t str);

impl Hash for TextKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

impl indexmap::Equivalent<Key> for TextKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(&key.0, Value::Text(text) if **text == *self.0)
    }
}

/// The kind of a view of a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewKind {
    Keys,
    Values,
    Items,
}

/// Python's `range`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

impl Range {
    /// The number of its elements; the sandbox limits it to 100,000.
    pub(super) fn len(&self) -> usize {
        let span = if self.step > 0 { self.stop - self.start } else { self.start - self.stop };
        let step = self.step.abs();
        usize::try_from((span.max(0) + step - 1) / step).unwrap_or(usize::MAX)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = Value> + use<> {
        let Range { start, step, .. } = *self;
        (0..self.len()).map(move |position| Value::Int(start + step * position as i128))
    }
}

/// An iterator that is consumed once. Its elements are computed when it is made; an error on the way is raised when
/// the iteration reaches it.
#[derive(Debug)]
pub(super) struct Generator {
    items: RefCell<VecDeque<Value>>,
    failure: RefCell<Option<Failure>>,
    nesting: usize,
}

impl Generator {
    pub(super) fn value(values: Vec<Value>, failure: Option<Failure>) -> Outcome<Value> {
        let nesting = one_deeper(values.iter())?;
        let (items, failure) = (RefCell::new(values.into()), RefCell::new(failure));
        Ok(Value::Generator(Rc::new(Generator { items, failure, nesting })))
    }

    /// The next element.
    pub(super) fn next(&self) -> Outcome<Option<Value>> {
        match self.items.borrow_mut().pop_front() {
            Some(value) => Ok(Some(value)),
            None => self.failure.borrow_mut().take().map_or(Ok(None), Err),
        }
    }

    /// All remaining elements.
    pub(super) fn rest(&self) -> Outcome<Vec<Value>> {
        let values = std::mem::take(&mut *self.items.borrow_mut()).into();
        self.failure.borrow_mut().take().map_or(Ok(values), Err)
    }
}

/// Jinja2's `namespace`, whose attributes a template can set.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) attributes: RefCell<IndexMap<Arc<str>, Value>>,
}

/// The variables of a block.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) variables: RefCell<Vec<(NameId, Value)>>,
    pub(super) parent: Option<Rc<Scope>>,
}

impl Scope {
    pub(super) fn new(parent: Option<&Rc<Scope>>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), parent: parent.cloned() })
    }

    pub(super) fn get(&self, name: NameId) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(current) = scope {
            if let Some((_, value)) = current.variables.borrow().iter().find(|(id, _)| *id == name) {
                return Some(value.clone());
            }
            scope = current.parent.as_deref();
        }
        None
    }

    pub(super) fn set(&self, name: NameId, value: Value) {
        let mut variables = self.variables.borrow_mut();
        // The old value is dropped after the borrow: it can own a scope.
        let old = match variables.iter_mut().find(|(id, _)| *id == name) {
            Some((_, slot)) => Some(std::mem::replace(slot, value)),
            None => {
                variables.push((name, value));
                None
            }
        };
        drop(variables);
        drop(old);
    }
}

/// A value that can be called.
#[derive(Debug)]
pub(super) enum Function {
    Global(Global),
    /// A method with the value that it belongs to.
    Method(Value, Arc<str>),
    Macro(Arc<Macro>, Rc<Scope>),
    /// Jinja2's `cycler`: its values and the position of the next one.
    Cycler(Rc<Items>, std::cell::Cell<usize>),
    /// Jinja2's `joiner`: its separator and whether it was called.
    Joiner(Arc<str>, std::cell::Cell<bool>),
}

/// A global function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    Lipsum,
    RaiseException,
    StrftimeNow,
}

impl Global {
    pub(super) const ALL: [(&str, Global); 8] = [
        ("range", Global::Range),
        ("dict", Global::Dict),
        ("namespace", Global::Namespace),
        ("cycler", Global::Cycler),
        ("joiner", Global::Joiner),
        ("lipsum", Global::Lipsum),
        ("raise_exception", Global::RaiseException),
        ("strftime_now", Global::StrftimeNow),
    ];
}

/// The state of a `for` loop that its variable `loop` shows.
#[derive(Debug)]
pub(super) struct LoopState {
    /// The loop's own statement, for `loop(...)` of a recursive loop and its condition.
    pub(super) statement: Arc<super::syntax::Loop>,
    /// The scope around the loop.
    pub(super) scope: Rc<Scope>,
    pub(super) items: Rc<Items>,
    /// The position in `items` of the next candidate.
    pub(super) position: std::cell::Cell<usize>,
    pub(super) index0: std::cell::Cell<usize>,
    /// Elements ahead that satisfy the loop's condition, if an attribute such as `loop.last` asked for them.
    pub(super) ahead: RefCell<VecDeque<Value>>,
    pub(super) previous: RefCell<Option<Value>>,
    pub(super) current: RefCell<Option<Value>>,
    pub(super) depth: usize,
    /// The arguments of the last call of `loop.changed`.
    pub(super) last_changed: RefCell<Option<Rc<Items>>>,
}

impl Value {
    pub(super) fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    /// Jinja2's `Undefined`, whose uses raise `message`.
    pub(super) fn undefined(message: impl Into<Arc<str>>) -> Value {
        Value::Undefined(message.into())
    }

    pub(super) fn list(values: Vec<Value>) -> Outcome<Value> {
        Items::new(values).map(Value::List)
    }

    pub(super) fn tuple(values: Vec<Value>) -> Outcome<Value> {
        Items::new(values).map(Value::Tuple)
    }

    pub(super) fn dict(entries: IndexMap<Key, Value>) -> Outcome<Value> {
        Dict::new(entries).map(Value::Dict)
    }

    /// The characters of a text.
    pub(super) fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Value::Text(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// The value of an integer or of a boolean, which is an integer in Python.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Bool(flag) => Some(i128::from(*flag)),
            _ => None,
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// The levels of lists, mappings and objects in the value.
    fn nesting(&self) -> usize {
        match self {
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => items.nesting,
            Value::Dict(dict) | Value::View(_, dict) => dict.nesting,
            Value::Generator(generator) => generator.nesting,
            Value::Function(function) => match &**function {
                Function::Method(value, _) => 1 + value.nesting(),
                Function::Cycler(items, _) => 1 + items.nesting,
                Function::Macro(..) | Function::Global(_) | Function::Joiner(..) => 1,
            },
            Value::Loop(state) => 1 + state.items.nesting,
            _ => 0,
        }
    }

    /// Whether the value is data: numbers, texts, lists and mappings.
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Value::List(items) | Value::Tuple(items) => items.nesting == 1 && items.values.iter().all(Value::is_plain),
            value => value.nesting() == 0 && !matches!(value, Value::Namespace(_)),
        }
    }

    /// Python's truth value.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(flag) => *flag,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) | Value::Markup(text) => !text.is_empty(),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => !items.values.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => !dict.entries.is_empty(),
            Value::Range(range) => range.len() > 0,
            Value::Generator(_) | Value::Namespace(_) | Value::Function(_) => true,
            // It has a length, which is at least one while it runs.
            Value::Loop(_) => true,
        }
    }

    /// The name of the Python type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Group(_) => "_GroupTuple",
            Value::Dict(_) => "dict",
            Value::View(ViewKind::Keys, _) => "dict_keys",
            Value::View(ViewKind::Values, _) => "dict_values",
            Value::View(ViewKind::Items, _) => "dict_items",
            Value::Range(_) => "range",
            Value::Generator(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Function(function) => match **function {
                Function::Macro(..) => "Macro",
                Function::Cycler(..) => "Cycler",
                Function::Joiner(..) => "Joiner",
                Function::Global(_) | Function::Method(..) => "function",
            },
            Value::Loop(_) => "LoopContext",
        }
    }

    /// The error of a use of an undefined value, if the value is undefined.
    pub(super) fn defined(&self) -> Outcome<()> {
        match self {
            Value::Undefined(message) => Err(Failure::new(FailureKind::Undefined, &**message)),
            _ => Ok(()),
        }
    }

    /// The length by Python's `len`; `None` if the type has none.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Value::Undefined(_) => Some(0),
            Value::Text(text) | Value::Markup(text) => Some(text.chars().count()),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => Some(items.values.len()),
            Value::Dict(dict) | Value::View(_, dict) => Some(dict.entries.len()),
            Value::Range(range) => Some(range.len()),
            _ => None,
        }
    }
}

impl From<&Literal> for Value {
    fn from(literal: &Literal) -> Value {
        match literal {
            Literal::None => Value::None,
            Literal::Bool(flag) => Value::Bool(*flag),
            Literal::Int(number) => Value::Int(*number),
            Literal::Float(number) => Value::Float(*number),
            Literal::Text(text) => Value::Text(Arc::clone(text)),
        }
    }
}

impl TryFrom<&serde_json::Value> for Value {
    type Error = Failure;

    /// The value that Python's `json.loads` makes.
    fn try_from(json: &serde_json::Value) -> Outcome<Value> {
        Ok(match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(number), _) => Value::Int(number),
                (None, Some(number)) => Value::Float(number),
                (None, None) => return Err(Failure::unsupported(format!("the number {number}"))),
            },
            serde_json::Value::String(text) => Value::text(text.as_str()),
            serde_json::Value::Array(items) => Value::list(items.iter().map(Value::try_from).collect::<Outcome<_>>()?)?,
            serde_json::Value::Object(entries) => {
                let entry = |(key, value)| Ok((Key(Value::text(String::as_str(key))), Value::try_from(value)?));
                Value::dict(entries.iter().map(entry).collect::<Outcome<_>>()?)?
            }
        })
    }
}
