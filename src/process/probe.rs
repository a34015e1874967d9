//! An HTTP client for health checks of containers (`--probe`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Timeout of each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of bytes that are read of a response: more than its first line.
const READ_MAX: u64 = 4096;

/// A health check of one page.
#[derive(Debug)]
pub struct Probe<'a> {
    url: &'a str,
    address: SocketAddr,
    path: &'a str,
}

impl<'a> Probe<'a> {
    /// Parses `http://ADDRESS:PORT/PATH`.
    pub fn parse(url: &'a str) -> Result<Self, String> {
        let expected = || {
            format!(
                "--probe: {url:?}: expected http://ADDRESS:PORT/PATH, like \
                 http://127.0.0.1:9153/healthz"
            )
        };
        let rest = url.strip_prefix("http://").ok_or_else(expected)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address: SocketAddr = authority.parse().map_err(|_| expected())?;
        let is_visible = |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic());
        let path = Some(path)
            .filter(|path| is_visible(path))
            .ok_or_else(expected)?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { url, address, path })
    }

    /// Requests the page. Returns an error unless its status is 200.
    pub fn run(&self) -> Result<(), String> {
        let Self { url, address, path } = *self;
        let status = status(address, path).map_err(|error| format!("--probe: {url:?}: {error}"))?;
        match status.split(' ').nth(1) {
            Some("200") => Ok(()),
            _ => Err(format!(
                "--probe: {url:?}: expected status 200, received {status:?}"
            )),
        }
    }
}

/// Returns the first line of the response.
fn status(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.take(READ_MAX).read_to_end(&mut response)?;
    let line = response.split(|byte| *byte == b'\r').next();
    Ok(String::from_utf8_lossy(line.unwrap_or_default()).into_owned())
}
