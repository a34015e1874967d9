//! The table of options.

mod answers;
mod network;
mod process;

use super::row::Row;

/// The parts of the table, in the order of the help.
const PARTS: [&[Row]; 3] = [network::NETWORK, answers::ANSWERS, process::PROCESS];

/// Returns the options of the command line that are also valid in an options file.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> + Clone {
    PARTS.into_iter().flatten()
}

/// Options of the command line alone, with their help.
pub(super) const COMMANDS: &[(&str, &str, &str, &str)] = &[
    (
        "C",
        "conf-file",
        "FILE",
        "read options from FILE, one per line",
    ),
    (
        "",
        "check-conf",
        "",
        "check options and files, then exit with 0 or 2",
    ),
    (
        "",
        "check-upstreams",
        "",
        "test the upstreams, then exit with 0 or 1",
    ),
    (
        "",
        "probe",
        "URL",
        "request URL; exit with 0 on status 200, else 1",
    ),
    ("h", "help", "", ""),
    ("V", "version", "", "print this help; print the version"),
];
