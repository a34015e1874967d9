//! A client of the program's HTTP server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Returns the page of metrics of a program, with the head of the response.
pub fn metrics(http: SocketAddr) -> String {
    let mut page = TcpStream::connect(http).expect("the program listens");
    page.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("the peer reads");
    let mut text = String::new();
    page.read_to_string(&mut text).expect("a page");
    text
}
