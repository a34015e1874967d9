//! The options file.

use std::path::Path;

use super::draft::Draft;
use super::similar::{UPSTREAM_SETTINGS, is_list, similar_option};
use super::table::{COMMANDS, rows};
use super::values::parse_switch;
use super::warnings::name_in_comment;
use super::{UsageError, usage};
use crate::base::file;

/// The byte-order mark with which some editors start a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the options of a file into the draft.
pub(super) fn read_file(draft: &mut Draft, path: &Path) -> Result<(), UsageError> {
    let bytes = file::read(path).map_err(|error| {
        let advice = if path.starts_with("~") {
            ": ~ is not expanded"
        } else {
            ""
        };
        usage(&format!(
            "--conf-file: {:?}: {}{advice}",
            path.display(),
            file::describe(path, &error)
        ))
    })?;
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let location = (path.to_owned(), index + 1);
        draft.location = Some(location.clone());
        let result = match str::from_utf8(line) {
            Ok(line) => read_line(draft, line),
            Err(_) => Err("expected UTF-8 text".to_owned()),
        };
        result.map_err(|problem| UsageError {
            location: Some(location),
            problem,
        })?;
    }
    draft.location = None;
    Ok(())
}

/// Returns the long name of an option as it is on the command line: `-u` or `--upstream`.
fn dashed_option(option: &str) -> Option<&'static str> {
    let long = option.strip_prefix("--");
    let short = option.strip_prefix('-').filter(|short| !short.is_empty());
    let row = rows().find(|row| long == Some(row.long) || short == Some(row.short))?;
    Some(row.long)
}

/// Describes an unknown option, with the mistake that is likely.
fn describe_unknown(option: &str) -> String {
    match similar_option(option) {
        _ if option.starts_with('-') => match dashed_option(option) {
            Some(long) => format!("{option:?}: unknown option: write {long}, without a dash"),
            None => format!("{option:?}: unknown option (see --help; names have no dash here)"),
        },
        Some(similar) if option.starts_with(&format!("{similar}:")) => {
            format!("{option:?}: unknown option: write = in place of the colon")
        }
        _ if option.starts_with([';', '/']) => {
            format!("{option:?}: unknown option: comments start with #")
        }
        _ if UPSTREAM_SETTINGS.contains(&option) => {
            format!(
                "{option:?}: unknown option: it is a setting of an upstream, like upstream = \
                 10.0.0.53,{option}=..."
            )
        }
        Some(similar) => format!("{option:?}: unknown option: did you mean {similar}?"),
        None => {
            format!("{option:?}: unknown option (see --help; a line is like upstream = 1.1.1.1)")
        }
    }
}

/// Applies a line `option=value` or `option value`. A `#` at the start or after white space
/// starts a comment.
fn read_line(draft: &mut Draft, line: &str) -> Result<(), String> {
    let comment = line
        .char_indices()
        .find(|&(at, c)| c == '#' && !line[..at].ends_with(|before: char| !before.is_whitespace()));
    let (line, comment) = line.split_at(comment.map_or(line.len(), |(at, _)| at));
    let line = line.trim();
    if line.is_empty() {
        return Ok(());
    }
    let (option, given) = match line.split_once(|c: char| c == '=' || c.is_whitespace()) {
        Some((option, value)) => {
            let value = value.trim_start();
            (
                option,
                Some(value.strip_prefix('=').unwrap_or(value).trim_start()),
            )
        }
        None => (line, None),
    };
    let value = given.unwrap_or_default();
    if COMMANDS.iter().any(|(_, long, ..)| *long == option) {
        return Err(format!("{option}: only allowed on the command line"));
    }
    let row = rows().find(|row| row.long == option);
    let row = row.ok_or_else(|| describe_unknown(option))?;
    if value.starts_with('=') {
        return Err(format!("{option}: {value:?}: expected one equals sign"));
    }
    if value.starts_with(['"', '\'']) {
        return Err(format!("{option}: {value:?}: remove the quotes"));
    }
    if !row.value.is_empty() && given.is_none() {
        return Err(format!("{option}: expected a value"));
    }
    let taken = match (row.value, given) {
        // A switch without a value is on, and an empty value is a mistake.
        ("", Some(value)) => parse_switch(value),
        _ => Some(value),
    };
    let Some(taken) = taken else {
        return Err(format!("{option}: {value:?}: expected yes, no or no value"));
    };
    if let Some(warning) = name_in_comment(option, value, comment) {
        draft.warn(Some(warning));
    }
    draft.record(row.long, value);
    (row.apply)(draft, taken).map_err(|expected| {
        let expected = if is_list(option, value) {
            "one value per line: repeat the option".into()
        } else {
            expected
        };
        format!("{option}: {value:?}: expected {expected}")
    })
}
