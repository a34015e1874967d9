//! A look at a page from outside, for those who watch a container: whether it is there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Octets of a response that are read: its first line, generously.
const READ_MAX: u64 = 4096;

/// Whether the page at `http://ADDRESS:PORT/PATH` has status 200; if not, why.
pub fn probe(url: &str) -> Result<(), String> {
    let expected = || format!("--probe: {url:?}: expected http://ADDRESS:PORT/PATH");
    let rest = url.strip_prefix("http://").ok_or_else(expected)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address: SocketAddr = authority.parse().map_err(|_| expected())?;
    let is_visible = |path: &str| path.bytes().all(|octet| octet.is_ascii_graphic());
    let path = Some(path)
        .filter(|path| is_visible(path))
        .ok_or_else(expected)?;
    let path = if path.is_empty() { "/" } else { path };
    let status = status(address, path).map_err(|error| format!("{url}: {error}"))?;
    match status.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("{url}: {status}")),
    }
}

/// The first line of the response.
fn status(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.take(READ_MAX).read_to_end(&mut response)?;
    let line = response.split(|octet| *octet == b'\r').next();
    Ok(String::from_utf8_lossy(line.unwrap_or_default()).into_owned())
}
