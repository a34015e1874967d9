//! Options on the command line and in a file, including upstreams. Any input gives a configuration
//! or an error of one line.
//!
//! Input: command line or file (one byte), the lines.

#![no_main]

mod common;

use dotproxy::options;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [place, bytes @ ..] = input else {
        return;
    };
    let arguments = if place % 2 == 0 {
        let Ok(text) = str::from_utf8(bytes) else {
            return;
        };
        text.lines().map(str::to_owned).collect()
    } else {
        let name = format!("dotproxy-fuzz-{}.conf", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("temporary files are writable");
        vec![format!("-C{}", path.display())]
    };
    if let Err(problem) = options::parse(&arguments) {
        let problem = problem.to_string();
        assert!(
            !problem.is_empty() && !problem.contains('\n'),
            "{problem:?}"
        );
    }
});
