//! Evaluates the expressions of a template.

use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::arguments::CallArguments;
use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::syntax::{Arguments, Expression, ExpressionKind, Link, LinkKind};
use super::value::{Key, Scope, Value};

impl Interpreter<'_> {
    /// The value of an expression.
    pub(super) fn evaluate(&self, expression: &Expression, scope: &Rc<Scope>) -> Outcome<Value> {
        self.line.set(expression.line);
        match &expression.kind {
            ExpressionKind::Literal(literal) => return Ok(Value::from(literal)),
            ExpressionKind::Name(name) => {
                self.meter.spend(1)?;
                return Ok(self.variable(scope, *name));
            }
            _ => {}
        }
        self.meter.nested(|| self.evaluate_nested(expression, scope))
    }

    fn evaluate_all(&self, expressions: &[Expression], scope: &Rc<Scope>) -> Outcome<Vec<Value>> {
        expressions.iter().map(|expression| self.evaluate(expression, scope)).collect()
    }

    fn evaluate_nested(&self, expression: &Expression, scope: &Rc<Scope>) -> Outcome<Value> {
        match &expression.kind {
            ExpressionKind::Literal(literal) => Ok(Value::from(literal)),
            ExpressionKind::Name(name) => Ok(self.variable(scope, *name)),
            ExpressionKind::Tuple(items) => Value::tuple(self.evaluate_all(items, scope)?),
            ExpressionKind::List(items) => Value::list(self.evaluate_all(items, scope)?),
            ExpressionKind::Dict(entries) => {
                let mut dict = IndexMap::with_capacity(entries.len());
                for (key, value) in entries {
                    let key = self.evaluate(key, scope)?;
                    let value = self.evaluate(value, scope)?;
                    dict.insert(self.key(&key)?, value);
                }
                Value::dict(dict)
            }
            ExpressionKind::Conditional { test, yes, no } => {
                if self.evaluate(test, scope)?.is_true() {
                    return self.evaluate(yes, scope);
                }
                match no {
                    Some(no) => self.evaluate(no, scope),
                    None => Ok(Value::undefined("the inline if-expression evaluated to false and has no else")),
                }
            }
            ExpressionKind::Logical { is_and, operands } => {
                let mut value = Value::None;
                for operand in operands {
                    value = self.evaluate(operand, scope)?;
                    if value.is_true() != *is_and {
                        break;
                    }
                }
                Ok(value)
            }
            ExpressionKind::Not(operand) => Ok(Value::Bool(!self.evaluate(operand, scope)?.is_true())),
            ExpressionKind::Compare(first, rest) => {
                let mut left = self.evaluate(first, scope)?;
                for (comparison, expression) in rest {
                    let right = self.evaluate(expression, scope)?;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            ExpressionKind::Arithmetic(first, rest) => {
                let mut left = self.evaluate(first, scope)?;
                for (operator, expression) in rest {
                    let right = self.evaluate(expression, scope)?;
                    self.meter.spend(1)?;
                    left = self.arithmetic(*operator, left, right)?;
                }
                Ok(left)
            }
            ExpressionKind::Concat(parts) => {
                let mut text = String::new();
                for value in self.evaluate_all(parts, scope)? {
                    let part = self.to_text(&value)?;
                    self.meter.extend(text.len(), part.len())?;
                    text.push_str(&part);
                }
                Ok(Value::text(text))
            }
            ExpressionKind::Sign { negative, operand } => {
                let value = self.evaluate(operand, scope)?;
                self.signed(*negative, &value)
            }
            ExpressionKind::Chain(first, links) => self.chain(first, links, None, scope),
        }
    }

    /// The key of a value, after the work of hashing it.
    pub(super) fn key(&self, value: &Value) -> Outcome<Key> {
        value.defined()?;
        if let Some(text) = value.as_text() {
            self.meter.read(text.len())?;
        }
        if let Value::Tuple(items) = value {
            for item in &items.values {
                self.key(item)?;
            }
        }
        Key::new(value)
    }

    /// The value of a chain. `caller` is a further argument of the last link, a call.
    pub(super) fn chain(
        &self,
        first: &Expression,
        links: &[Link],
        caller: Option<Value>,
        scope: &Rc<Scope>,
    ) -> Outcome<Value> {
        let mut value = self.evaluate(first, scope)?;
        let mut position = 0;
        while let Some(link) = links.get(position) {
            self.line.set(link.line);
            position += 1;
            // A method call, without a value for the method itself.
            if let (LinkKind::Attribute(name), Some(Link { kind: LinkKind::Call(arguments), line })) =
                (&link.kind, links.get(position))
                && self.has_method(&value, name)
            {
                self.meter.spend(1)?;
                position += 1;
                let mut given = self.arguments(arguments, scope)?;
                self.line.set(*line);
                if let (Some(caller), true) = (&caller, position == links.len()) {
                    given.keyword.push((Arc::from("caller"), caller.clone()));
                }
                value = self.call_method(&value, name, given)?;
                continue;
            }
            value = match (&link.kind, &caller) {
                (LinkKind::Call(arguments), Some(caller)) if position == links.len() => {
                    let mut given = self.arguments(arguments, scope)?;
                    given.keyword.push((Arc::from("caller"), caller.clone()));
                    self.call(&value, given)?
                }
                _ => self.follow(value, link, scope)?,
            };
        }
        Ok(value)
    }

    /// The value of one link of a chain, applied to `value`.
    pub(super) fn follow(&self, value: Value, link: &Link, scope: &Rc<Scope>) -> Outcome<Value> {
        self.meter.spend(1)?;
        self.line.set(link.line);
        match &link.kind {
            LinkKind::Attribute(name) => self.attribute(&value, name),
            LinkKind::Item(expression) => {
                let item = self.evaluate(expression, scope)?;
                self.item(&value, &item)
            }
            LinkKind::Slice(bounds) => {
                let mut values = [const { None }; 3];
                for (slot, bound) in values.iter_mut().zip(bounds) {
                    if let Some(expression) = bound {
                        *slot = Some(self.evaluate(expression, scope)?);
                    }
                }
                self.slice(&value, &values)
            }
            LinkKind::Call(arguments) => {
                let given = self.arguments(arguments, scope)?;
                self.line.set(link.line);
                self.call(&value, given)
            }
            LinkKind::Filter(name, arguments) => {
                let given = self.arguments(arguments, scope)?;
                self.line.set(link.line);
                self.filter(name, value, given)
            }
            LinkKind::Test { name, arguments, negated } => {
                let given = self.arguments(arguments, scope)?;
                self.line.set(link.line);
                Ok(Value::Bool(self.test(name, &value, given)? != *negated))
            }
        }
    }

    fn arguments(&self, arguments: &Arguments, scope: &Rc<Scope>) -> Outcome<CallArguments> {
        let mut positional = self.evaluate_all(&arguments.positional, scope)?;
        let mut keyword = Vec::new();
        for (name, expression) in &arguments.keyword {
            keyword.push((Arc::clone(name), self.evaluate(expression, scope)?));
        }
        if let Some(expression) = &arguments.more_positional {
            let more = self.evaluate(expression, scope)?;
            positional.extend(self.iterate(&more)?.values.iter().cloned());
        }
        if let Some(expression) = &arguments.more_keyword {
            let Value::Dict(dict) = self.evaluate(expression, scope)? else {
                return Err(Failure::of_type("the argument after ** must be a mapping"));
            };
            for (key, value) in &dict.entries {
                let Value::Text(name) = &key.0 else { return Err(Failure::of_type("keywords must be strings")) };
                if keyword.iter().any(|(known, _)| known == name) {
                    return Err(Failure::of_type(format!("two values for the argument '{name}'")));
                }
                keyword.push((Arc::clone(name), value.clone()));
            }
        }
        Ok(CallArguments { positional, keyword })
    }
}
