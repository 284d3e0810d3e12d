//! Parses the statements of a template by Jinja2's grammar. Expressions are in `expressions`.

use std::collections::HashMap;
use std::sync::Arc;

use super::failure::{Failure, Outcome};
use super::lexer::{Token, TokenKind, tokens};
use super::syntax::{Body, Expression, ExpressionKind, Link, LinkKind, Loop, Macro, NameId, Statement, Target};

/// The maximum nesting of blocks, brackets and signs. Real templates stay below 40, and Python's own parser has a limit
/// of 200 brackets.
const MAX_DEPTH: usize = 100;

/// The maximum length of a template in bytes. Real templates stay below 100 KiB.
const MAX_SOURCE: usize = 1 << 20;

/// A parsed template.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) body: Body,
    /// The names by their number.
    pub(super) names: Vec<Arc<str>>,
}

/// Parses `source`. `has_filter` and `has_test` decide whether a filter or a test exists.
///
/// # Errors
/// The failure and its line.
pub(super) fn parse(
    source: &str,
    has_filter: fn(&str) -> bool,
    has_test: fn(&str) -> bool,
) -> Result<Parsed, (Failure, usize)> {
    if source.len() > MAX_SOURCE {
        return Err((Failure::limit(format!("it has more than {} MiB", MAX_SOURCE >> 20)), 1));
    }
    let mut parser = Parser {
        tokens: tokens(source)?,
        position: 0,
        depth: 0,
        names: Vec::new(),
        ids: HashMap::new(),
        used: Vec::new(),
        loops: 0,
        soft: false,
        loop_assigned: false,
        unknown: Vec::new(),
        has_filter,
        has_test,
    };
    match parser.body(&[]) {
        Ok((body, _)) => match parser.unknown.into_iter().next() {
            Some(unknown) => Err(unknown),
            None => Ok(Parsed { body, names: parser.names }),
        },
        Err(failure) => Err((failure, parser.line())),
    }
}

/// The state of the parser.
pub(super) struct Parser {
    tokens: Vec<Token>,
    position: usize,
    depth: usize,
    names: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, NameId>,
    /// The names that expressions read, in order.
    used: Vec<NameId>,
    /// The number of loops around the position within one macro.
    loops: usize,
    /// Whether Jinja2 reports an unknown filter or test when it runs, and not when it compiles: inside `if`.
    soft: bool,
    /// Whether the loop that is parsed assigns the variable `loop`.
    loop_assigned: bool,
    /// Unknown filters and tests, with their lines, that Jinja2 reports when it compiles.
    pub(super) unknown: Vec<(Failure, usize)>,
    has_filter: fn(&str) -> bool,
    has_test: fn(&str) -> bool,
}

pub(super) fn syntax(message: impl Into<String>) -> Failure {
    Failure::other(format!("syntax error: {}", message.into()))
}

impl Parser {
    pub(super) fn line(&self) -> usize {
        self.tokens[self.position].line
    }

    pub(super) fn peek(&self) -> &TokenKind {
        &self.tokens[self.position].kind
    }

    pub(super) fn peek_second(&self) -> &TokenKind {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.position + 1).min(last)].kind
    }

    pub(super) fn next(&mut self) -> TokenKind {
        let kind = self.tokens[self.position].kind.clone();
        self.position = (self.position + 1).min(self.tokens.len() - 1);
        kind
    }

    pub(super) fn at_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), TokenKind::Operator(found) if *found == operator)
    }

    pub(super) fn at_name(&self, name: &str) -> bool {
        matches!(self.peek(), TokenKind::Name(found) if **found == *name)
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.at_operator(operator);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.at_name(name);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn expect_operator(&mut self, operator: &str) -> Outcome<()> {
        if self.skip_operator(operator) { Ok(()) } else { Err(self.unexpected(&format!("'{operator}'"))) }
    }

    fn expect(&mut self, kind: &TokenKind, name: &str) -> Outcome<()> {
        if self.peek() == kind {
            self.next();
            Ok(())
        } else {
            Err(self.unexpected(name))
        }
    }

    pub(super) fn expect_name(&mut self) -> Outcome<Arc<str>> {
        match self.peek().clone() {
            TokenKind::Name(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn unexpected(&self, expected: &str) -> Failure {
        let found = match self.peek() {
            TokenKind::Data(_) => "text".to_owned(),
            TokenKind::VariableBegin => "'{{'".to_owned(),
            TokenKind::VariableEnd => "'}}'".to_owned(),
            TokenKind::BlockBegin => "'{%'".to_owned(),
            TokenKind::BlockEnd => "'%}'".to_owned(),
            TokenKind::Name(name) => format!("'{name}'"),
            TokenKind::Text(text) => format!("the string {text:?}"),
            TokenKind::Int(number) => number.to_string(),
            TokenKind::Float(number) => number.to_string(),
            TokenKind::Operator(operator) => format!("'{operator}'"),
            TokenKind::End => "the end of the template".to_owned(),
        };
        syntax(format!("expected {expected}, found {found}"))
    }

    /// The number of a name.
    pub(super) fn id(&mut self, name: &Arc<str>) -> NameId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.names.len() as NameId;
        self.names.push(Arc::clone(name));
        self.ids.insert(Arc::clone(name), id);
        id
    }

    /// The number of a name that an expression reads.
    pub(super) fn use_name(&mut self, name: &Arc<str>) -> NameId {
        let id = self.id(name);
        self.used.push(id);
        id
    }

    /// Runs `parse` one level deeper.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Failure::limit(format!("its expressions and blocks are nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// Runs `parse` where Jinja2 reports unknown filters late, or early.
    pub(super) fn with_soft<T>(&mut self, soft: bool, parse: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        let outer = std::mem::replace(&mut self.soft, soft);
        let result = parse(self);
        self.soft = outer;
        result
    }

    /// Notes a filter that does not exist.
    pub(super) fn check_filter(&mut self, name: &str) {
        if !self.soft && !(self.has_filter)(name) {
            self.unknown.push((syntax(format!("no filter named '{name}'")), self.line()));
        }
    }

    /// Notes a test that does not exist.
    pub(super) fn check_test(&mut self, name: &str) {
        if !self.soft && !(self.has_test)(name) {
            self.unknown.push((syntax(format!("no test named '{name}'")), self.line()));
        }
    }

    /// Parses until a block that begins with one of `ends`, and returns that name; without `ends` until the end of the
    /// template. The position is after the name.
    fn body(&mut self, ends: &[&str]) -> Outcome<(Body, Arc<str>)> {
        let mut body = Vec::new();
        loop {
            match self.next() {
                TokenKind::Data(text) => body.push(Statement::Text(text)),
                TokenKind::VariableBegin => {
                    body.push(Statement::Print(self.tuple(true, None, false)?));
                    self.expect(&TokenKind::VariableEnd, "'}}'")?;
                }
                TokenKind::BlockBegin => {
                    if let TokenKind::Name(name) = self.peek().clone()
                        && ends.contains(&&*name)
                    {
                        self.next();
                        return Ok((body, name));
                    }
                    self.nested(|parser| parser.statement(&mut body))?;
                    self.expect(&TokenKind::BlockEnd, "'%}'")?;
                }
                _ if ends.is_empty() => return Ok((body, Arc::from(""))),
                _ => return Err(syntax(format!("the end of the template before '{}'", ends.join("' or '")))),
            }
        }
    }

    /// Parses the rest of a tag and the body after it, up to one of `ends`.
    fn block(&mut self, ends: &[&str]) -> Outcome<(Body, Arc<str>)> {
        self.skip_operator(":");
        self.expect(&TokenKind::BlockEnd, "'%}'")?;
        self.body(ends)
    }

    /// [`Self::block`] in a scope of its own.
    fn inner_block(&mut self, end: &str) -> Outcome<Body> {
        self.with_soft(false, |parser| parser.block(&[end])).map(|(body, _)| body)
    }

    fn statement(&mut self, body: &mut Body) -> Outcome<()> {
        let name = self.expect_name()?;
        body.push(match &*name {
            "if" => self.with_soft(true, Self::conditional)?,
            "for" => self.for_loop()?,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => self.macro_definition()?,
            "call" => self.call_block()?,
            "filter" => {
                let filters = self.filters(true)?;
                Statement::FilterBlock { filters, body: self.inner_block("endfilter")? }
            }
            "generation" => {
                // Jinja2 makes it a function of its own, which no `break` can leave.
                Statement::Generation(self.outside_loops(|parser| parser.inner_block("endgeneration"))?)
            }
            "print" => loop {
                body.push(Statement::Print(self.expression()?));
                if !self.skip_operator(",") {
                    return Ok(());
                }
            },
            "break" | "continue" if self.loops == 0 => return Err(syntax(format!("'{name}' outside of a loop"))),
            "break" => Statement::Break,
            "continue" => Statement::Continue,
            "block" | "extends" | "include" | "import" | "from" | "autoescape" => {
                return Err(Failure::unsupported(format!("the tag '{name}'")));
            }
            _ => return Err(syntax(format!("unknown tag '{name}'"))),
        });
        Ok(())
    }

    fn outside_loops<T>(&mut self, parse: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        let outer = std::mem::take(&mut self.loops);
        let result = parse(self);
        self.loops = outer;
        result
    }

    fn conditional(&mut self) -> Outcome<Statement> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false, None, false)?;
            let (body, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match &*end {
                "elif" => {}
                "else" => {
                    let (otherwise, _) = self.block(&["endif"])?;
                    return Ok(Statement::If { branches, otherwise });
                }
                _ => return Ok(Statement::If { branches, otherwise: Vec::new() }),
            }
        }
    }

    fn for_loop(&mut self) -> Outcome<Statement> {
        let line = self.line();
        let assigned = std::mem::take(&mut self.loop_assigned);
        let target = self.target(Some("in"), false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("'in'"));
        }
        self.with_soft(false, |parser| {
            let items = parser.tuple(false, Some("recursive"), false)?;
            let condition = if parser.skip_name("if") { Some(parser.expression()?) } else { None };
            let recursive = parser.skip_name("recursive");
            let used = parser.used.len();
            parser.loops += 1;
            let (body, end) = parser.block(&["endfor", "else"])?;
            parser.loops -= 1;
            let variable = parser.id(&Arc::from("loop"));
            let uses_loop = recursive || parser.used[used..].contains(&variable);
            let otherwise = if &*end == "else" { parser.block(&["endfor"])?.0 } else { Vec::new() };
            if parser.loop_assigned {
                return Err(syntax("the variable 'loop' is the loop's own"));
            }
            parser.loop_assigned = assigned;
            let statement = Loop { line, target, items, condition, recursive, uses_loop, body, otherwise };
            Ok(Statement::For(Arc::new(statement)))
        })
    }

    fn set(&mut self) -> Outcome<Statement> {
        let target = self.target(None, true)?;
        if self.skip_operator("=") {
            return Ok(Statement::Set(target, self.tuple(true, None, false)?));
        }
        let filters = self.filters(false)?;
        Ok(Statement::SetBlock { target, filters, body: self.inner_block("endset")? })
    }

    fn with(&mut self) -> Outcome<Statement> {
        let mut values = Vec::new();
        while *self.peek() != TokenKind::BlockEnd {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            let assigned = self.loop_assigned;
            let target = self.target(None, false)?;
            self.loop_assigned = assigned;
            self.expect_operator("=")?;
            values.push((target, self.expression()?));
        }
        Ok(Statement::With { values, body: self.inner_block("endwith")? })
    }

    fn macro_definition(&mut self) -> Outcome<Statement> {
        let name = self.expect_name()?;
        let id = self.id(&name);
        self.callable(name, id, true, "endmacro").map(|definition| Statement::Macro(Arc::new(definition)))
    }

    fn call_block(&mut self) -> Outcome<Statement> {
        let has_signature = self.at_operator("(");
        let signature = self.position;
        if has_signature {
            self.parameters()?;
        }
        let call = self.expression()?;
        if !matches!(&call.kind, ExpressionKind::Chain(_, links) if matches!(links.last(), Some(Link { kind: LinkKind::Call(_), .. })))
        {
            return Err(syntax("expected a call"));
        }
        let after = self.position;
        self.position = signature;
        let name: Arc<str> = Arc::from("caller");
        let id = self.id(&name);
        let parameters = if has_signature { self.parameters()? } else { Vec::new() };
        self.position = after;
        let caller = self.callable_body(name, id, parameters, "endcall")?;
        Ok(Statement::CallBlock { call, caller: Arc::new(caller) })
    }

    fn callable(&mut self, name: Arc<str>, id: NameId, signature: bool, end: &str) -> Outcome<Macro> {
        let parameters = if signature { self.parameters()? } else { Vec::new() };
        self.callable_body(name, id, parameters, end)
    }

    fn callable_body(
        &mut self,
        name: Arc<str>,
        id: NameId,
        parameters: Vec<(NameId, Option<Expression>)>,
        end: &str,
    ) -> Outcome<Macro> {
        let used = self.used.len();
        let body = self.outside_loops(|parser| parser.inner_block(end))?;
        let mut uses = |name: &str| {
            let id = self.id(&Arc::from(name));
            self.used[used..].contains(&id) && parameters.iter().all(|(parameter, _)| *parameter != id)
        };
        let (uses_varargs, uses_kwargs, uses_caller) = (uses("varargs"), uses("kwargs"), uses("caller"));
        Ok(Macro { name, id, parameters, uses_varargs, uses_kwargs, uses_caller, body })
    }

    fn parameters(&mut self) -> Outcome<Vec<(NameId, Option<Expression>)>> {
        self.expect_operator("(")?;
        let mut parameters: Vec<(NameId, Option<Expression>)> = Vec::new();
        while !self.at_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.expect_name()?;
            let id = self.id(&name);
            let default = if self.skip_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, last)| last.is_some()) {
                return Err(syntax("a parameter without a default follows one with a default"));
            }
            if default.is_none() && &*name == "caller" {
                return Err(syntax("the parameter 'caller' needs a default"));
            }
            if parameters.iter().any(|(parameter, _)| *parameter == id) {
                return Err(syntax(format!("the parameter '{name}' occurs twice")));
            }
            parameters.push((id, default));
        }
        self.expect_operator(")")?;
        Ok(parameters)
    }

    /// Parses the target of an assignment, up to the name `end` if it is given.
    fn target(&mut self, end: Option<&str>, with_namespace: bool) -> Outcome<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            if !targets.is_empty() {
                self.expect_operator(",")?;
            }
            if self.at_tuple_end(end) || self.at_operator("=") {
                break;
            }
            targets.push(self.nested(|parser| parser.single_target(with_namespace))?);
            if !self.at_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match (is_tuple, targets.pop()) {
            (false, Some(target)) => Ok(target),
            (_, Some(last)) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
            (_, None) => Err(self.unexpected("a name to assign")),
        }
    }

    fn single_target(&mut self, with_namespace: bool) -> Outcome<Target> {
        if self.skip_operator("(") {
            let target = self.target(None, false)?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let name = self.expect_name()?;
        if matches!(&*name, "true" | "false" | "True" | "False" | "none" | "None") {
            return Err(syntax(format!("cannot assign to '{name}'")));
        }
        if with_namespace && self.skip_operator(".") {
            let id = self.use_name(&name);
            return Ok(Target::Attribute(id, self.expect_name()?));
        }
        self.loop_assigned |= &*name == "loop";
        Ok(Target::Name(self.id(&name)))
    }
}
