//! The error type of the engine, under the name that the benchmark uses, and the conversion of pairgate's errors.

pub use actbench_activations::error::{Error, Result};

/// The same error of the benchmark: `map_err(from_pairgate)`.
pub fn from_pairgate(error: pairgate::Error) -> Error {
    match error {
        pairgate::Error::Usage(what) => Error::Usage(what),
        pairgate::Error::Input { origin, what } => Error::Input { origin, what },
        pairgate::Error::Io { action, path, source } => Error::Io { action, path, source },
        pairgate::Error::Measurement(what) => Error::Numeric(what),
        pairgate::Error::Interrupted => Error::Interrupted,
        pairgate::Error::Internal(what) => Error::internal(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairgate_errors_keep_their_message() {
        let io = |action: &'static str| pairgate::Error::io(action, "a")(std::io::Error::other("refused"));
        let errors = || {
            [
                pairgate::Error::usage("a"),
                pairgate::Error::file("a", "b"),
                io("read"),
                io("write"),
                pairgate::Error::Measurement("a".to_owned()),
                pairgate::Error::Interrupted,
            ]
        };
        for (converted, original) in errors().map(from_pairgate).iter().zip(errors()) {
            assert_eq!(converted.to_string(), original.to_string());
        }
        assert_eq!(from_pairgate(pairgate::Error::internal("a")).exit_code(), 70);
    }
}
