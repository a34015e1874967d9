//! Scenarios of the loop with events that a short read could hide.

use dotproxy::net::Signal;

use crate::support::tcp_scene::{TcpScene, question};

/// Returns the ids of the responses that a client has received.
fn answered(scene: &mut TcpScene, stream: u64) -> Vec<u8> {
    let responses = scene.received(stream);
    let len = question(1).len();
    responses.chunks(len).map(|response| response[3]).collect()
}

#[test]
fn end_of_stream_that_arrives_with_a_query_closes_the_connection() {
    let mut scene = TcpScene::new(&[]);
    let stream = scene.connect_tcp(0.0, 1);
    scene.send(1.0, stream, &question(1));
    scene.send(2.0, stream, &question(2));
    scene.end(2.0, stream);
    scene.run_until(2.5);
    assert_eq!(answered(&mut scene, stream), [1, 2]);
    assert!(scene.closed_at(stream).is_some());
}

#[test]
fn query_that_arrives_with_the_signal_to_finish_is_answered() {
    let mut scene = TcpScene::new(&[]);
    let stream = scene.connect_tcp(0.0, 1);
    scene.send(1.0, stream, &question(1));
    // The loop handles the signal first.
    scene.signal(2.0, Signal::Finish);
    scene.send(2.0, stream, &question(2));
    scene.run_until(2.5);
    assert_eq!(answered(&mut scene, stream), [1, 2]);
}
