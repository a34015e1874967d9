//! Denials that the denial cache makes of the verified records of the tree.

use super::*;

/// Returns the answer that the denial cache has for the question of a message.
fn synthesized(world: &World, message: &[u8]) -> Option<Vec<u8>> {
    let message = Message::parse(message).expect("the data of the test is valid");
    let (question, now) = (message.question()?, Instant::default());
    let denial = world.denials.deny(question, 0, 3_600, now)?;
    Some(denial.to_message(question, true))
}

/// Returns the response code and the number of records in the answer section.
fn rcode_and_answers(message: &[u8]) -> (Rcode, u16) {
    let header = Message::parse(message)
        .expect("the data of the test is valid")
        .header();
    (header.flags.rcode(), header.answers)
}

#[test]
fn synthesized_denials_are_those_of_the_upstream_and_have_a_proof() {
    let mut world = World::new();
    let answers = world.of_clients();
    for answer in &answers {
        world.verdict(&answer.message, Subject::Answer);
    }
    let mut count = 0;
    for answer in &answers {
        let message = Message::parse(&answer.message).expect("the data of the test is valid");
        let question = message.question().expect("the data of the test is valid");
        let text = Problem::limit_reached(question.name(), question.rr_type()).to_string();
        let Some(denial) = synthesized(&world, &answer.message) else {
            let is_secure_denial = answer.verdict == "secure" && message.header().answers == 0;
            // Opt-out spans are not cached.
            assert!(!is_secure_denial || text.contains("optout.tld1."), "{text}");
            continue;
        };
        count += 1;
        assert_eq!(answer.verdict, "secure", "{text}");
        assert_eq!(
            rcode_and_answers(&denial),
            rcode_and_answers(&answer.message)
        );
        assert_eq!(
            world.verdict(&denial, Subject::Answer),
            SecurityStatus::Secure
        );
    }
    assert!(count > 10, "{count}");
}

#[test]
fn names_that_were_never_asked_for_are_denied() {
    let mut world = World::new();
    let answers = world.of_clients();
    for answer in &answers {
        world.verdict(&answer.message, Subject::Answer);
    }
    let (mut names, mut types) = (0, 0);
    for answer in &answers {
        // Another last byte in the first label makes another name.
        for byte in b"!07AMZaz" {
            let mut asked = answer.message.clone();
            let place = HEADER_LEN + usize::from(asked[HEADER_LEN]);
            asked[place] = *byte;
            let Some(denial) = synthesized(&world, &asked) else {
                continue;
            };
            let is_nxdomain = rcode_and_answers(&denial).0 == Rcode::NXDOMAIN;
            names += u32::from(is_nxdomain);
            types += u32::from(!is_nxdomain);
            let verdict = world.verdict(&denial, Subject::Answer);
            assert_eq!(verdict, SecurityStatus::Secure, "{denial:?}");
            let question = Message::parse(&asked).expect("the data of the test is valid");
            let question = question.question().expect("the data of the test is valid");
            let is_same = |answer: &&Answer| {
                let message =
                    Message::parse(&answer.message).expect("the data of the test is valid");
                message
                    .question()
                    .expect("the data of the test is valid")
                    .to_key()
                    == question.to_key()
            };
            if let Some(answer) = answers.iter().find(is_same) {
                assert_eq!(
                    rcode_and_answers(&denial),
                    rcode_and_answers(&answer.message)
                );
            }
        }
    }
    assert!(names > 100 && types > 5, "{names} names, {types} types");
}
