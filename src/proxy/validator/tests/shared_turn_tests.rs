//! Answers that several clients need, beside a client whose answers keep the validator busy.

use super::clients::TestClients;
use super::*;

#[test]
fn follower_takes_a_turn_of_its_own() {
    let mut clients = TestClients::busy(200);
    assert_eq!(clients.ask(1_000, 1, "alias.nsec3.tld1"), []);
    assert_eq!(clients.ask(1_001, 2, "alias.nsec3.tld1"), []);
    let turns = clients.turns_until(1_001);
    assert!(turns < 20, "{turns} turns");
}

#[test]
fn records_that_a_busy_client_asked_for_first_are_verified_in_the_turn_of_another() {
    let mut clients = TestClients::new(ON, |_| ());
    clients.add_signed("warm.costly");
    clients.learn("warm.costly");
    clients.holds = |text| !text.contains("costly") && !text.ends_with("/A");
    assert_eq!(clients.ask(1_000, 1, "www.nsec3.tld1"), []);
    clients.keep_busy(200);
    assert_eq!(clients.ask(1_001, 2, "alias.nsec3.tld1"), []);
    clients.release();
    let turns = clients.turns_until(1_001);
    assert!(turns < 40, "{turns} turns");
}

#[test]
fn follower_does_not_fail_with_a_client_that_has_no_room() {
    let mut clients = TestClients::busy(256);
    clients.holds = |text| text == "alias.nsec3.tld1./A";
    assert_eq!(clients.ask(1_000, 1, "alias.nsec3.tld1"), []);
    assert_eq!(clients.ask(1_001, 2, "alias.nsec3.tld1"), []);
    clients.release();
    assert!(clients.responses.contains(&(1_000, Rcode::SERVFAIL)));
    clients.turns_until(1_001);
    assert!(clients.responses.contains(&(1_001, Rcode::NOERROR)));
}
