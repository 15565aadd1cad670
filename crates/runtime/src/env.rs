//! Environment variables, read once at start by each program's `config.rs`.
//!
//! Invariant: all variables are parsed before an error is returned, so that a user sees all
//! mistakes at once.

mod agent;

use std::{collections::HashMap, fmt, str::FromStr};

pub use agent::AgentConfig;

/// The source of variables: the process environment, or a map in tests.
pub trait Environment {
    /// The value of `name`; an empty value counts as absent.
    fn get(&self, name: &str) -> Option<String>;
}

/// The process environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the process environment")]
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl Environment for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).filter(|value| !value.is_empty()).cloned()
    }
}

/// A variable with a missing or invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A required variable is absent.
    #[error("{name} is not set: {hint}")]
    Missing {
        /// Name of the variable.
        name: String,
        /// Its purpose.
        hint: String,
    },
    /// The value cannot be parsed.
    #[error("{name}={value:?} is not valid: {reason}")]
    Invalid {
        /// Name of the variable.
        name: String,
        /// Its value.
        value: String,
        /// The parse error.
        reason: String,
    },
}

/// All invalid variables, printed one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvErrors(pub Vec<EnvError>);

impl fmt::Display for EnvErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} environment variable(s) cannot be used", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for EnvErrors {}

/// Reads variables and collects errors.
pub struct Env<'a> {
    source: &'a dyn Environment,
    errors: Vec<EnvError>,
}

impl<'a> Env<'a> {
    /// Reads from `source`.
    pub fn new(source: &'a dyn Environment) -> Self {
        Self { source, errors: Vec::new() }
    }

    /// An optional variable. An invalid value is recorded as an error and returned as absent.
    pub fn optional<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let value = self.source.get(name)?;
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.errors.push(EnvError::Invalid {
                    name: name.to_owned(),
                    value,
                    reason: format!("{error}"),
                });
                None
            }
        }
    }

    /// A variable with a default.
    pub fn or<T: FromStr>(&mut self, name: &str, default: T) -> T
    where
        T::Err: fmt::Display,
    {
        self.optional(name).unwrap_or(default)
    }

    /// A required variable; `placeholder` is returned until [`Env::finish`] reports the error.
    pub fn required<T: FromStr>(&mut self, name: &str, hint: &str, placeholder: T) -> T
    where
        T::Err: fmt::Display,
    {
        if self.source.get(name).is_none() {
            self.errors.push(EnvError::Missing { name: name.to_owned(), hint: hint.to_owned() });
            return placeholder;
        }
        self.optional(name).unwrap_or(placeholder)
    }

    /// Records an error that the program found itself.
    pub fn reject(&mut self, name: &str, value: &str, reason: impl fmt::Display) {
        self.errors.push(EnvError::Invalid {
            name: name.into(),
            value: value.into(),
            reason: format!("{reason}"),
        });
    }

    /// Returns the configuration, or all errors.
    ///
    /// # Errors
    /// Every variable that is missing or cannot be parsed.
    pub fn finish<T>(self, config: T) -> Result<T, EnvErrors> {
        if self.errors.is_empty() { Ok(config) } else { Err(EnvErrors(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_every_mistake_at_once_and_names_the_variable() {
        let source =
            HashMap::from([("PORT".to_owned(), "x".to_owned()), ("EMPTY".to_owned(), String::new())]);
        let mut env = Env::new(&source);
        let port: u16 = env.or("PORT", 1);
        let empty: u16 = env.or("EMPTY", 2);
        let node: String = env.required("NODE_NAME", "the node this runs on", String::new());
        assert_eq!((port, empty, node.as_str()), (1, 2, ""));
        let errors = env.finish(()).unwrap_err().to_string();
        assert!(errors.contains("PORT=\"x\"") && errors.contains("NODE_NAME is not set"), "{errors}");
    }
}
