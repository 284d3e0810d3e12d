//! Parses expressions by Jinja2's grammar: `if`, `or`, `and`, `not`, comparisons, `+ -`, `~`, `* / // %`, `**`, signs,
//! and then attributes, subscripts, calls, filters and tests.

use std::sync::Arc;

use super::failure::{Failure, Outcome};
use super::lexer::TokenKind;
use super::parser::{Parser, syntax};
use super::syntax::{Arguments, Comparison, Expression, ExpressionKind, Link, LinkKind, Literal, Operator};

/// The maximum number of `a if b if c` in one expression.
const MAX_TESTS: usize = 20;

fn boxed(line: usize, kind: ExpressionKind) -> Box<Expression> {
    Box::new(Expression { line, kind })
}

impl Parser {
    pub(super) fn expression(&mut self) -> Outcome<Expression> {
        self.nested(Self::conditional_expression)
    }

    /// `yes if test else no`. Jinja2 reports unknown filters in it when they run.
    fn conditional_expression(&mut self) -> Outcome<Expression> {
        let line = self.line();
        let n_unknown = self.unknown.len();
        let mut yes = self.logical_or()?;
        let mut n_tests = 0;
        while self.skip_name("if") {
            let test = Box::new(self.logical_or()?);
            let no = if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            yes = Expression { line, kind: ExpressionKind::Conditional { test, yes: Box::new(yes), no } };
            self.unknown.truncate(n_unknown);
            n_tests += 1;
            // Each one nests the earlier ones.
            if n_tests > MAX_TESTS {
                return Err(Failure::limit(format!("it has more than {MAX_TESTS} conditions in a row")));
            }
        }
        Ok(yes)
    }

    fn logical_or(&mut self) -> Outcome<Expression> {
        self.logical("or", false, Self::logical_and)
    }

    fn logical_and(&mut self) -> Outcome<Expression> {
        self.logical("and", true, Self::negation)
    }

    fn logical(
        &mut self,
        name: &str,
        is_and: bool,
        operand: fn(&mut Self) -> Outcome<Expression>,
    ) -> Outcome<Expression> {
        let line = self.line();
        let first = operand(self)?;
        if !self.at_name(name) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.skip_name(name) {
            operands.push(operand(self)?);
        }
        Ok(Expression { line, kind: ExpressionKind::Logical { is_and, operands } })
    }

    fn negation(&mut self) -> Outcome<Expression> {
        let line = self.line();
        if self.skip_name("not") {
            let operand = self.nested(Self::negation)?;
            return Ok(Expression { line, kind: ExpressionKind::Not(Box::new(operand)) });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Outcome<Expression> {
        let line = self.line();
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                TokenKind::Operator("==") => Comparison::Equal,
                TokenKind::Operator("!=") => Comparison::NotEqual,
                TokenKind::Operator("<") => Comparison::Less,
                TokenKind::Operator("<=") => Comparison::LessEqual,
                TokenKind::Operator(">") => Comparison::Greater,
                TokenKind::Operator(">=") => Comparison::GreaterEqual,
                TokenKind::Name(name) if &**name == "in" => Comparison::In,
                TokenKind::Name(name)
                    if &**name == "not"
                        && matches!(self.peek_second(), TokenKind::Name(second) if &**second == "in") =>
                {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((comparison, self.sum()?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression { line, kind: ExpressionKind::Compare(Box::new(first), rest) })
    }

    fn arithmetic(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Outcome<Expression>,
    ) -> Outcome<Expression> {
        let line = self.line();
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.at_operator(symbol)) {
            self.next();
            rest.push((*operator, operand(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression { line, kind: ExpressionKind::Arithmetic(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Outcome<Expression> {
        self.arithmetic(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Outcome<Expression> {
        let line = self.line();
        let first = self.product()?;
        if !self.at_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expression { line, kind: ExpressionKind::Concat(parts) })
    }

    fn product(&mut self) -> Outcome<Expression> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Modulo),
        ];
        self.arithmetic(&operators, Self::power)
    }

    fn power(&mut self) -> Outcome<Expression> {
        self.arithmetic(&[("**", Operator::Power)], |parser| parser.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Outcome<Expression> {
        let line = self.line();
        let negative = self.at_operator("-");
        let mut node = if negative || self.at_operator("+") {
            self.next();
            let operand = self.nested(|parser| parser.unary(false))?;
            Expression { line, kind: ExpressionKind::Sign { negative, operand: Box::new(operand) } }
        } else {
            self.primary()?
        };
        let mut links = Vec::new();
        self.postfix(&mut links)?;
        if with_filters {
            self.filters_and_tests(&mut links)?;
        }
        if !links.is_empty() {
            node = Expression { line, kind: ExpressionKind::Chain(Box::new(node), links) };
        }
        Ok(node)
    }

    fn primary(&mut self) -> Outcome<Expression> {
        let line = self.line();
        let literal = |literal| Ok(ExpressionKind::Literal(literal));
        let kind = match self.peek().clone() {
            TokenKind::Name(name) => {
                self.next();
                match &*name {
                    "true" | "True" => literal(Literal::Bool(true)),
                    "false" | "False" => literal(Literal::Bool(false)),
                    "none" | "None" => literal(Literal::None),
                    "self" => Err(Failure::unsupported("the variable 'self', the blocks of the template,")),
                    _ => Ok(ExpressionKind::Name(self.use_name(&name))),
                }
            }
            TokenKind::Text(first) => {
                self.next();
                let mut text = first;
                while let TokenKind::Text(more) = self.peek().clone() {
                    self.next();
                    text = Arc::from(format!("{text}{more}"));
                }
                literal(Literal::Text(text))
            }
            TokenKind::Int(number) => {
                self.next();
                literal(Literal::Int(number))
            }
            TokenKind::Float(number) => {
                self.next();
                literal(Literal::Float(number))
            }
            TokenKind::Operator("(") => {
                self.next();
                let inner = self.nested(|parser| parser.tuple(true, None, true))?;
                self.expect_operator(")")?;
                return Ok(inner);
            }
            TokenKind::Operator("[") => {
                self.next();
                let items = self.separated("]", Self::expression)?;
                Ok(ExpressionKind::List(items))
            }
            TokenKind::Operator("{") => {
                self.next();
                let entries = self.separated("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_operator(":")?;
                    Ok((key, parser.expression()?))
                })?;
                Ok(ExpressionKind::Dict(entries))
            }
            _ => Err(self.unexpected("an expression")),
        };
        Ok(Expression { line, kind: kind? })
    }

    /// Parses elements between commas up to `close`; a comma can follow the last one.
    fn separated<T>(&mut self, close: &str, element: fn(&mut Self) -> Outcome<T>) -> Outcome<Vec<T>> {
        let mut elements = Vec::new();
        while !self.at_operator(close) {
            if !elements.is_empty() {
                self.expect_operator(",")?;
                if self.at_operator(close) {
                    break;
                }
            }
            elements.push(element(self)?);
        }
        self.expect_operator(close)?;
        Ok(elements)
    }

    pub(super) fn at_tuple_end(&self, end: Option<&str>) -> bool {
        matches!(self.peek(), TokenKind::VariableEnd | TokenKind::BlockEnd | TokenKind::Operator(")"))
            || end.is_some_and(|name| self.at_name(name))
    }

    /// Parses an expression, or a tuple if commas follow, up to the name `end` if it is given.
    pub(super) fn tuple(
        &mut self,
        with_condition: bool,
        end: Option<&str>,
        in_parentheses: bool,
    ) -> Outcome<Expression> {
        let line = self.line();
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            if self.at_tuple_end(end) {
                break;
            }
            items.push(if with_condition { self.expression()? } else { self.nested(Self::logical_or)? });
            if !self.at_operator(",") {
                break;
            }
            is_tuple = true;
        }
        if !is_tuple {
            if let Some(only) = items.pop() {
                return Ok(only);
            }
            if !in_parentheses {
                return Err(self.unexpected("an expression"));
            }
        }
        Ok(Expression { line, kind: ExpressionKind::Tuple(items) })
    }

    fn postfix(&mut self, links: &mut Vec<Link>) -> Outcome<()> {
        loop {
            let line = self.line();
            let kind = if self.skip_operator(".") {
                match self.next() {
                    TokenKind::Name(name) => LinkKind::Attribute(name),
                    TokenKind::Int(number) => {
                        LinkKind::Item(*boxed(line, ExpressionKind::Literal(Literal::Int(number))))
                    }
                    _ => return Err(syntax("expected a name or a number after '.'")),
                }
            } else if self.skip_operator("[") {
                self.nested(|parser| parser.subscript(line))?
            } else if self.at_operator("(") {
                LinkKind::Call(self.arguments()?)
            } else {
                return Ok(());
            };
            links.push(Link { line, kind });
        }
    }

    fn subscript(&mut self, line: usize) -> Outcome<LinkKind> {
        if self.at_operator("]") {
            self.next();
            return Ok(LinkKind::Item(Expression { line, kind: ExpressionKind::Tuple(Vec::new()) }));
        }
        let first = if self.at_operator(":") { None } else { Some(self.expression()?) };
        if !self.at_operator(":") {
            let mut items: Vec<Expression> = first.into_iter().collect();
            let is_tuple = self.at_operator(",");
            while self.skip_operator(",") {
                if self.at_operator("]") {
                    break;
                }
                items.push(self.expression()?);
            }
            self.expect_operator("]")?;
            return Ok(match items.pop() {
                Some(only) if !is_tuple || items.is_empty() => LinkKind::Item(only),
                last => {
                    items.extend(last);
                    LinkKind::Item(Expression { line, kind: ExpressionKind::Tuple(items) })
                }
            });
        }
        let mut bounds = [first.map(Box::new), None, None];
        for bound in &mut bounds[1..] {
            if !self.skip_operator(":") {
                break;
            }
            if !self.at_operator("]") && !self.at_operator(",") && !self.at_operator(":") {
                *bound = Some(Box::new(self.expression()?));
            }
        }
        if self.at_operator(",") {
            return Err(Failure::unsupported("a subscript of several slices"));
        }
        self.expect_operator("]")?;
        Ok(LinkKind::Slice(bounds))
    }

    fn filters_and_tests(&mut self, links: &mut Vec<Link>) -> Outcome<()> {
        loop {
            if self.at_operator("|") {
                links.extend(self.filters(false)?);
            } else if self.at_name("is") {
                links.push(self.test()?);
            } else if self.at_operator("(") {
                let line = self.line();
                links.push(Link { line, kind: LinkKind::Call(self.arguments()?) });
            } else {
                return Ok(());
            }
        }
    }

    fn dotted_name(&mut self) -> Outcome<Arc<str>> {
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = Arc::from(format!("{name}.{}", self.expect_name()?));
        }
        Ok(name)
    }

    /// Parses `|filter|filter`; with `inline` the first bar is absent.
    pub(super) fn filters(&mut self, inline: bool) -> Outcome<Vec<Link>> {
        let mut filters = Vec::new();
        let mut inline = inline;
        while inline || self.at_operator("|") {
            if !std::mem::take(&mut inline) {
                self.next();
            }
            let line = self.line();
            let name = self.dotted_name()?;
            self.check_filter(&name);
            let arguments = if self.at_operator("(") { self.arguments()? } else { Arguments::default() };
            filters.push(Link { line, kind: LinkKind::Filter(name, arguments) });
        }
        Ok(filters)
    }

    fn test(&mut self) -> Outcome<Link> {
        let line = self.line();
        self.next();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        self.check_test(&name);
        let takes_argument = match self.peek() {
            TokenKind::Name(word) => !matches!(&**word, "else" | "or" | "and"),
            TokenKind::Text(_) | TokenKind::Int(_) | TokenKind::Float(_) => true,
            TokenKind::Operator(operator) => matches!(*operator, "[" | "{"),
            _ => false,
        };
        let mut arguments = Arguments::default();
        if self.at_operator("(") {
            arguments = self.arguments()?;
        } else if takes_argument {
            if self.at_name("is") {
                return Err(syntax("several tests in a row"));
            }
            let node = self.primary()?;
            let mut links = Vec::new();
            self.postfix(&mut links)?;
            let kind = ExpressionKind::Chain(Box::new(node), links);
            arguments.positional.push(Expression { line, kind });
        }
        Ok(Link { line, kind: LinkKind::Test { name, arguments, negated } })
    }

    fn arguments(&mut self) -> Outcome<Arguments> {
        self.nested(Self::arguments_inside)
    }

    fn arguments_inside(&mut self) -> Outcome<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.at_operator(")") {
            if !std::mem::take(&mut first) {
                self.expect_operator(",")?;
                if self.at_operator(")") {
                    break;
                }
            }
            let (dynamic, dynamic_keywords) = (arguments.more_positional.is_some(), arguments.more_keyword.is_some());
            let fits = if self.skip_operator("*") {
                arguments.more_positional = Some(Box::new(self.expression()?));
                !dynamic && !dynamic_keywords
            } else if self.skip_operator("**") {
                arguments.more_keyword = Some(Box::new(self.expression()?));
                !dynamic_keywords
            } else if matches!(self.peek(), TokenKind::Name(_)) && *self.peek_second() == TokenKind::Operator("=") {
                let name = self.expect_name()?;
                self.next();
                let value = self.expression()?;
                let repeated = arguments.keyword.iter().any(|(known, _)| *known == name);
                arguments.keyword.push((name, value));
                !dynamic_keywords && !repeated
            } else {
                let fits = !dynamic && !dynamic_keywords && arguments.keyword.is_empty();
                arguments.positional.push(self.expression()?);
                fits
            };
            if !fits {
                return Err(syntax("invalid arguments of a call"));
            }
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }
}
