//! Answers of zones whose owners have the validator ask as much as possible.

use super::*;
use crate::dnssec::testing::{COSTLY, Costly, branching_answers};

#[test]
fn number_of_questions_for_an_answer_is_bounded() {
    let costly = Costly::new();
    let time = Tree::read().time;
    let mut config = config(ON);
    config.dnssec.anchors = vec![costly.anchor()];
    let mut world = World::of(config);
    for (name, message) in branching_answers(&costly, time) {
        world.answers.insert(key(&name, Type::DS), message);
    }
    let keys = [COSTLY, &[0, 48, 0, 1]].concat();
    world.answers.insert(keys, costly.keys(time));
    world.answers.extend([address("n.costly")]);
    let response = world.ask("n.costly", Type::A, AD);
    let count = world.sent.len();
    assert!(count <= 80, "{count} questions, {:?}", response.rcode());
}
