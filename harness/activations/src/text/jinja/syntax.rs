//! The syntax tree of a template.
//!
//! Chains of one precedence are flat lists, so that only true nesting, which the parser bounds, recurses.

use std::sync::Arc;

/// The number of a name in the template's table of names.
pub(super) type NameId = u32;

/// An expression with its line.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) line: usize,
    pub(super) kind: ExpressionKind,
}

/// A literal.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
}

/// The kind of an expression.
#[derive(Debug)]
pub(super) enum ExpressionKind {
    Literal(Literal),
    Name(NameId),
    Tuple(Vec<Expression>),
    List(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Conditional {
        test: Box<Expression>,
        yes: Box<Expression>,
        no: Option<Box<Expression>>,
    },
    /// `a and b and c`, or the same with `or`.
    Logical {
        is_and: bool,
        operands: Vec<Expression>,
    },
    Not(Box<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// Operators of one precedence, evaluated from the left.
    Arithmetic(Box<Expression>, Vec<(Operator, Expression)>),
    Concat(Vec<Expression>),
    Sign {
        negative: bool,
        operand: Box<Expression>,
    },
    /// Attributes, subscripts, calls, filters and tests after an expression.
    Chain(Box<Expression>, Vec<Link>),
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

/// A binary arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

/// An element of a chain, with its line.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) line: usize,
    pub(super) kind: LinkKind,
}

/// The kind of an element of a chain.
#[derive(Debug)]
pub(super) enum LinkKind {
    Attribute(Arc<str>),
    Item(Expression),
    Slice([Option<Box<Expression>>; 3]),
    Call(Arguments),
    Filter(Arc<str>, Arguments),
    Test { name: Arc<str>, arguments: Arguments, negated: bool },
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expression>,
    pub(super) keyword: Vec<(Arc<str>, Expression)>,
    /// `*expression`.
    pub(super) more_positional: Option<Box<Expression>>,
    /// `**expression`.
    pub(super) more_keyword: Option<Box<Expression>>,
}

/// Receives an assigned value.
#[derive(Debug)]
pub(super) enum Target {
    Name(NameId),
    /// An attribute of a namespace.
    Attribute(NameId, Arc<str>),
    Tuple(Vec<Target>),
}

/// The body of a block.
pub(super) type Body = Vec<Statement>;

/// A statement of a template.
#[derive(Debug)]
pub(super) enum Statement {
    Text(Arc<str>),
    Print(Expression),
    If {
        branches: Vec<(Expression, Body)>,
        otherwise: Body,
    },
    For(Arc<Loop>),
    Set(Target, Expression),
    SetBlock {
        target: Target,
        filters: Vec<Link>,
        body: Body,
    },
    With {
        values: Vec<(Target, Expression)>,
        body: Body,
    },
    Macro(Arc<Macro>),
    /// A call whose `caller` is the body.
    CallBlock {
        call: Expression,
        caller: Arc<Macro>,
    },
    FilterBlock {
        filters: Vec<Link>,
        body: Body,
    },
    /// transformers' `{% generation %}`, which renders as its body.
    Generation(Body),
    Break,
    Continue,
}

/// A `for` statement.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) line: usize,
    pub(super) target: Target,
    pub(super) items: Expression,
    pub(super) condition: Option<Expression>,
    pub(super) recursive: bool,
    /// Whether the body uses the variable `loop`.
    pub(super) uses_loop: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

/// A macro, or the body of a call block.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Arc<str>,
    pub(super) id: NameId,
    pub(super) parameters: Vec<(NameId, Option<Expression>)>,
    pub(super) uses_varargs: bool,
    pub(super) uses_kwargs: bool,
    pub(super) uses_caller: bool,
    pub(super) body: Body,
}
