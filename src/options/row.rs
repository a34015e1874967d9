//! The form of a row in the table of options.

use super::draft::Draft;
use super::values::Applied;
use crate::config::Config;

/// An option of the command line and the options file.
pub(super) struct Row {
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    /// The name of the value; empty for an option without a value.
    pub(super) value: &'static str,
    /// The help text; empty if the option shares the help of the next row.
    pub(super) help: &'static str,
    /// Parses and stores the value, or returns a description of the expected value.
    pub(super) apply: fn(&mut Draft, &str) -> Applied,
    pub(super) reload: Reload,
}

/// The effect of a reload on the setting of an option.
pub(super) enum Reload {
    /// The new value applies.
    Applies,
    /// The value cannot change while the program runs. The function restores the running value in
    /// the new settings, and returns whether it differed.
    Restores(fn(&mut Config, &Config) -> bool),
}

/// Restores a setting. Returns whether it differed.
pub(super) fn restore<T: Clone + PartialEq>(new: &mut T, running: &T) -> bool {
    let has_changed = new != running;
    new.clone_from(running);
    has_changed
}
