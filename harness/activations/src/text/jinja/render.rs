//! Executes the statements of a template.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::syntax::{Body, ExpressionKind, Link, Loop, Macro, Statement, Target};
use super::value::{Function, LoopState, Scope, Value};

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

/// The maximum nesting of recursive loops.
const MAX_LOOPS: usize = 100;

impl Interpreter<'_> {
    /// Executes `body` and appends its text to `output`.
    pub(super) fn execute(&self, body: &Body, scope: &Rc<Scope>, output: &mut String) -> Outcome<Flow> {
        self.meter.nested(|| {
            for statement in body {
                let flow = self.statement(statement, scope, output)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    fn write(&self, text: &str, output: &mut String) -> Outcome<()> {
        self.meter.extend(output.len(), text.len())?;
        output.push_str(text);
        Ok(())
    }

    /// The text of a body in a scope of its own.
    fn captured_text(&self, body: &Body, scope: &Rc<Scope>) -> Outcome<(String, Flow)> {
        let mut text = String::new();
        let flow = self.execute(body, &Scope::new(Some(scope)), &mut text)?;
        Ok((text, flow))
    }

    fn statement(&self, statement: &Statement, scope: &Rc<Scope>, output: &mut String) -> Outcome<Flow> {
        match statement {
            Statement::Text(text) => self.write(text, output)?,
            Statement::Print(expression) => {
                let value = self.evaluate(expression, scope)?;
                match value.as_text() {
                    Some(text) => self.write(text, output)?,
                    None => self.write(&self.to_text(&value)?, output)?,
                }
            }
            Statement::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.evaluate(test, scope)?.is_true() {
                        return self.execute(body, scope, output);
                    }
                }
                return self.execute(otherwise, scope, output);
            }
            Statement::For(statement) => {
                self.line.set(statement.line);
                let value = self.evaluate(&statement.items, scope)?;
                return self.run_loop(statement, &value, 0, scope, output);
            }
            Statement::Set(target, expression) => {
                let value = self.evaluate(expression, scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::SetBlock { target, filters, body } => {
                let (text, flow) = self.captured_text(body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.filtered(Value::text(text), filters, scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::With { values, body } => {
                let inner = Scope::new(Some(scope));
                for (target, expression) in values {
                    let value = self.evaluate(expression, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.execute(body, &inner, output);
            }
            Statement::Macro(definition) => {
                self.define(definition, scope);
            }
            Statement::CallBlock { call, caller } => {
                let function = self.capture_macro(caller, scope);
                let value = self.call_with_caller(call, function, scope)?;
                self.write(&self.to_text(&value)?, output)?;
            }
            Statement::FilterBlock { filters, body } => {
                let (text, flow) = self.captured_text(body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.filtered(Value::text(text), filters, scope)?;
                self.write(&self.to_text(&value)?, output)?;
            }
            Statement::Generation(body) => {
                let (text, _) = self.captured_text(body, scope)?;
                self.write(&text, output)?;
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn capture_macro(&self, definition: &Arc<Macro>, scope: &Rc<Scope>) -> Value {
        self.capture(scope);
        Value::Function(Rc::new(Function::Macro(Arc::clone(definition), Rc::clone(scope))))
    }

    fn define(&self, definition: &Arc<Macro>, scope: &Rc<Scope>) {
        scope.set(definition.id, self.capture_macro(definition, scope));
    }

    fn filtered(&self, value: Value, filters: &[Link], scope: &Rc<Scope>) -> Outcome<Value> {
        filters.iter().try_fold(value, |value, link| self.follow(value, link, scope))
    }

    /// Assigns a value to a target.
    fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Outcome<()> {
        match target {
            Target::Name(name) => scope.set(*name, value),
            Target::Attribute(name, attribute) => {
                let Value::Namespace(namespace) = self.variable(scope, *name) else {
                    return Err(Failure::other("cannot assign an attribute of a value other than a namespace"));
                };
                self.set_attribute(&namespace, attribute, value)?;
            }
            Target::Tuple(targets) => {
                value.defined()?;
                let items = self.iterate(&value)?;
                if items.values.len() != targets.len() {
                    return Err(Failure::of_value(format!(
                        "{} values cannot be assigned to {} names",
                        items.values.len(),
                        targets.len()
                    )));
                }
                for (target, item) in targets.iter().zip(&items.values) {
                    self.assign(target, item.clone(), scope)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a loop over `value`. `depth` counts the calls of a recursive loop.
    pub(super) fn run_loop(
        &self,
        statement: &Arc<Loop>,
        value: &Value,
        depth: usize,
        scope: &Rc<Scope>,
        output: &mut String,
    ) -> Outcome<Flow> {
        if depth > MAX_LOOPS {
            return Err(Failure::limit("its recursive loop is nested too deeply"));
        }
        let state = Rc::new(LoopState {
            statement: Arc::clone(statement),
            scope: Rc::clone(scope),
            items: self.iterate(value)?,
            position: Cell::new(0),
            index0: Cell::new(0),
            ahead: RefCell::new(VecDeque::new()),
            previous: RefCell::new(None),
            current: RefCell::new(None),
            depth,
            last_changed: RefCell::new(None),
        });
        let (mut n_rounds, mut completed) = (0, false);
        while let Some(item) = self.next_item(&state)? {
            let inner = Scope::new(Some(scope));
            if statement.uses_loop {
                let previous = state.current.replace(Some(item.clone()));
                state.previous.replace(previous);
                state.index0.set(n_rounds);
                inner.set(self.loop_name(), Value::Loop(Rc::clone(&state)));
            }
            self.assign(&statement.target, item, &inner)?;
            n_rounds += 1;
            match self.execute(&statement.body, &inner, output)? {
                Flow::Break => break,
                Flow::Continue => {}
                Flow::Next => completed = true,
            }
        }
        // Jinja2 notes a round at its end, which `break` and `continue` do not reach.
        if !completed {
            return self.execute(&statement.otherwise, &Scope::new(Some(scope)), output);
        }
        Ok(Flow::Next)
    }

    /// The next element that satisfies the loop's condition.
    fn next_item(&self, state: &LoopState) -> Outcome<Option<Value>> {
        if let Some(item) = state.ahead.borrow_mut().pop_front() {
            return Ok(Some(item));
        }
        self.candidate(state)
    }

    fn candidate(&self, state: &LoopState) -> Outcome<Option<Value>> {
        while let Some(item) = state.items.values.get(state.position.get()) {
            state.position.set(state.position.get() + 1);
            let Some(condition) = &state.statement.condition else { return Ok(Some(item.clone())) };
            let inner = Scope::new(Some(&state.scope));
            self.assign(&state.statement.target, item.clone(), &inner)?;
            if self.evaluate(condition, &inner)?.is_true() {
                return Ok(Some(item.clone()));
            }
        }
        Ok(None)
    }

    /// Makes sure that `count` elements ahead are known, if there are so many. Returns how many are.
    fn look_ahead(&self, state: &LoopState, count: usize) -> Outcome<usize> {
        loop {
            let known = state.ahead.borrow().len();
            if known >= count {
                return Ok(known);
            }
            match self.candidate(state)? {
                Some(item) => state.ahead.borrow_mut().push_back(item),
                None => return Ok(known),
            }
        }
    }

    /// An attribute of the variable `loop`.
    pub(super) fn loop_attribute(&self, state: &LoopState, name: &str) -> Outcome<Option<Value>> {
        let index0 = state.index0.get() as i128;
        let remaining = || Ok(self.look_ahead(state, usize::MAX)? as i128);
        let or_undefined = |value: Option<Value>, which: &str| {
            value.unwrap_or_else(|| Value::undefined(format!("there is no {which} item")))
        };
        Ok(Some(match name {
            "index" => Value::Int(index0 + 1),
            "index0" => Value::Int(index0),
            "first" => Value::Bool(index0 == 0),
            "last" => Value::Bool(self.look_ahead(state, 1)? == 0),
            "length" => Value::Int(index0 + 1 + remaining()?),
            "revindex" => Value::Int(1 + remaining()?),
            "revindex0" => Value::Int(remaining()?),
            "depth" => Value::Int(state.depth as i128 + 1),
            "depth0" => Value::Int(state.depth as i128),
            "previtem" => or_undefined(state.previous.borrow().clone(), "previous"),
            "nextitem" => {
                self.look_ahead(state, 1)?;
                or_undefined(state.ahead.borrow().front().cloned(), "next")
            }
            "cycle" | "changed" => return Err(Failure::unsupported(format!("'loop.{name}' that is not called"))),
            _ => return Ok(None),
        }))
    }

    /// The text of a recursive loop that is called with new items.
    pub(super) fn call_loop(&self, state: &LoopState, value: &Value) -> Outcome<Value> {
        if !state.statement.recursive {
            return Err(Failure::of_type("the loop must have the word 'recursive' to be called"));
        }
        let mut text = String::new();
        self.meter.nested(|| self.run_loop(&state.statement, value, state.depth + 1, &state.scope, &mut text))?;
        Ok(Value::text(text))
    }

    /// Calls the last link of a chain, a call, with the body of a call block as its caller.
    fn call_with_caller(&self, call: &super::syntax::Expression, caller: Value, scope: &Rc<Scope>) -> Outcome<Value> {
        let ExpressionKind::Chain(first, links) = &call.kind else { return Err(Failure::other("expected a call")) };
        self.chain(first, links, Some(caller), scope)
    }
}
