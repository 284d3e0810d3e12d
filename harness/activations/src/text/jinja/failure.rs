//! The reasons why a template renders no text.

/// The class of a [`Failure`]. Filters such as `int` catch some classes, as the Python function behind them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The template called `raise_exception`.
    Raised,
    /// Python's `TypeError`.
    Type,
    /// Python's `ValueError`.
    Value,
    /// Jinja2's `UndefinedError`.
    Undefined,
    /// Any other error that Jinja2 raises.
    Other,
    /// Jinja2 would render a text that this crate does not reproduce.
    Unsupported,
    /// The template exceeds a bound on work, memory or nesting.
    Limit,
}

/// An error of a template, without its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) message: String,
}

/// The result of a step of parsing or rendering.
pub(super) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// Python's `TypeError`.
    pub(super) fn of_type(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Type, message)
    }

    /// Python's `ValueError`.
    pub(super) fn of_value(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Value, message)
    }

    /// Any other error of Jinja2 or Python.
    pub(super) fn other(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Other, message)
    }

    /// A feature of Jinja2 that is not reproduced.
    pub(super) fn unsupported(feature: impl std::fmt::Display) -> Failure {
        Failure::new(FailureKind::Unsupported, format!("{feature} is not supported"))
    }

    /// A bound that the template exceeds.
    pub(super) fn limit(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Limit, message)
    }
}
