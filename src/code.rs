//! Code that has run leaves memory until it runs again.
//!
//! The kernel maps code in groups of pages as it runs, and takes none of it away while there is
//! memory. So what reads options, files and certificates, and what shakes hands, would stay there
//! for good, which is most of what a program of this size takes. It is in its file all the same:
//! giving it up costs nothing, and what is needed again is mapped again.

use std::ops::Range;
use std::path::Path;

use dotproxy::base::file;

/// Where the code of the program and of its libraries lies.
#[derive(Debug, Default)]
pub(crate) struct Code {
    mapped: Vec<Range<usize>>,
}

impl Code {
    /// As the kernel has mapped it; none of it where that does not show.
    pub(crate) fn find() -> Self {
        let smaps = file::read(Path::new("/proc/self/smaps")).unwrap_or_default();
        let mapped = parse(str::from_utf8(&smaps).unwrap_or_default());
        Self { mapped }
    }

    /// Lets it go.
    pub(crate) fn leave(&self) {
        self.mapped.iter().for_each(leave);
    }
}

#[expect(unsafe_code, reason = "nothing wraps this call")]
fn leave(pages: &Range<usize>) {
    use nix::libc::{MADV_DONTNEED, c_void, madvise};
    let start = pages.start as *mut c_void;
    // SAFETY: these pages are code that was read from a file and has not been changed, which is
    // what the kernel puts in their place when they are next needed.
    unsafe { madvise(start, pages.len(), MADV_DONTNEED) };
}

/// The mappings of files in `/proc/self/smaps` that hold code as it is in the file.
fn parse(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut code = None;
    for line in smaps.lines() {
        if let Some(changed) = line.strip_prefix("Anonymous:") {
            found.extend(code.take().filter(|_| changed.trim() == "0 kB"));
        } else if !line
            .split(' ')
            .next()
            .is_some_and(|word| word.ends_with(':'))
        {
            code = code_of(line);
        }
    }
    found
}

/// The mapping that a line starts, if it is code of a file.
fn code_of(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp";
    let is_of_file = words.nth(3)?.starts_with('/');
    let place = |text| usize::from_str_radix(text, 16).ok();
    (is_code && is_of_file).then_some(place(start)?..place(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_found_as_long_as_nobody_has_changed_it() {
        let smaps = "\
7f001000-7f005000 r-xp 00001000 08:01 42    /usr/bin/dotproxy
Size:                 16 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
7f005000-7f006000 r--p 00005000 08:01 42    /usr/bin/dotproxy
Anonymous:             0 kB
7f007000-7f008000 r-xp 00001000 08:01 43    /usr/lib/libc.so.6
Anonymous:             4 kB
7ffd0000-7ffd2000 r-xp 00000000 00:00 0     [vdso]
Anonymous:             0 kB
7ffd2000-7ffd3000 r-xp 00000000 00:00 0
Anonymous:             0 kB
";
        assert_eq!(parse(smaps), vec![0x7f00_1000..0x7f00_5000]);
    }

    #[test]
    fn program_goes_on_without_its_code() {
        let code = Code::find();
        let here = leave as *const () as usize;
        assert!(code.mapped.iter().any(|mapped| mapped.contains(&here)));
        code.leave();
        assert_eq!("12".parse(), Ok(12));
    }
}
