//! The mode that only logs verdicts.

use super::*;

#[test]
fn log_mode_changes_no_response() {
    let mut world = World::new(&["-u192.0.2.1", "--dnssec=log"]);
    let response = world.ask("www.stripped.tld1", Type::A, AD);
    assert_eq!(
        (response.rcode(), response.has_ad()),
        (Rcode::NOERROR, true)
    );
    assert_eq!(response.types(), [Type::A]);
    let dnssec = &world.scene.proxy.counters().dnssec;
    let mut failures = dnssec.failures();
    assert_eq!(
        failures.find(|(_, count)| *count > 0),
        Some(("rrsigs-missing", 1))
    );
}

#[test]
fn log_mode_delivers_answers_that_cannot_be_validated() {
    let log = &["-u192.0.2.1", "--dnssec=log"];
    // The keys are not answered.
    let mut world = World::new(log);
    world.silent_about = Some("./DNSKEY");
    let start = world.scene.now;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    let took = world.scene.now - start;
    assert!(
        took <= LOG_DELAY_MAX + Duration::from_millis(100),
        "{took:?}"
    );
    // There is no room for the validation.
    let mut config = config(log);
    config.limits.validations = 1;
    let mut world = World::of(config);
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    // The answer has too many sets.
    let mut world = World::new(log);
    let answer = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
    let answer = answer.expect("the data of the test is valid");
    let opt = answer.len() - 11;
    for number in 0..30 {
        let record = [
            b"\x01",
            &[number][..],
            b"\0\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01",
        ];
        let record = record.concat();
        answer.splice(opt..opt, record);
    }
    answer[9] += 30;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    // The upstream does not know DO.
    let mut world = World::new(log);
    world.refuses_do = true;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::NOERROR);
    assert_eq!(response.types()[0], Type::A);
}
