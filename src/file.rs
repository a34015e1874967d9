//! Files that people write, read whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Octets of the largest file that is read. All roots of a system together have a quarter of it.
const LEN_MAX: u64 = 1024 * 1024;

/// Reads a file, which is an error if it is larger than anybody writes.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?
        .take(LEN_MAX + 1)
        .read_to_end(&mut octets)?;
    if octets.len() as u64 > LEN_MAX {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_an_end_is_an_error() {
        assert!(read(Path::new("/dev/zero")).is_err());
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
    }
}
