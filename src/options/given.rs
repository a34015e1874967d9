//! The options as written, for messages about several options.

use std::path::PathBuf;

use super::UsageError;

/// A value as written, and its place if that is in a file.
pub(super) struct Written {
    pub(super) value: String,
    pub(super) location: Option<(PathBuf, usize)>,
}

/// The options read so far, in order.
#[derive(Default)]
pub(super) struct Given {
    options: Vec<(&'static str, Written)>,
}

impl Given {
    pub(super) fn record(&mut self, option: &'static str, written: Written) {
        self.options.push((option, written));
    }

    /// Returns the values of an option, in order.
    pub(super) fn all<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a Written> {
        let of_option = self.options.iter().filter(move |(name, _)| *name == option);
        of_option.map(|(_, written)| written)
    }

    /// Returns the value of an option, the last one if there are several.
    pub(super) fn last(&self, option: &str) -> Option<&Written> {
        let mut options = self.options.iter().rev();
        let (_, written) = options.find(|(name, _)| *name == option)?;
        Some(written)
    }

    /// Returns those of these options that are given.
    fn among<'a>(&self, options: &[&'a str]) -> Vec<&'a str> {
        let given = options.iter().filter(|option| self.last(option).is_some());
        given.copied().collect()
    }

    /// Lists those of these options that are given, or all if none is given.
    pub(super) fn names(&self, options: &[&str]) -> String {
        let given = self.among(options);
        let named = if given.is_empty() { options } else { &given };
        let named = named.iter().map(|option| format!("--{option}"));
        named.collect::<Vec<_>>().join(", ")
    }

    /// Lists those of these options that are given, with their values.
    pub(super) fn values(&self, options: &[&str]) -> String {
        let pair = |option: &&str| Some(format!("--{option}: {:?}", self.last(option)?.value));
        options
            .iter()
            .filter_map(pair)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Returns an error with the place of the first of these options that is in a file.
    pub(super) fn error(&self, options: &[&str], problem: String) -> UsageError {
        let mut given = options.iter().filter_map(|option| self.last(option));
        let location = given.find_map(|written| written.location.clone());
        UsageError { location, problem }
    }
}
