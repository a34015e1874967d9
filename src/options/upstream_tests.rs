//! Warnings about upstreams and their names.

use super::tests::warnings;

#[test]
fn names_without_an_upstream_are_a_warning() {
    let warnings = warnings("-u udp://10.0.0.1,domain=a -u 1.1.1.1,domain=b");
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert_eq!(
        warning,
        "--upstream: every upstream has domain= or domains-file=: queries for other names get \
         REFUSED; add an upstream without them to answer these"
    );
}

#[test]
fn fallback_of_no_other_upstream_is_a_warning() {
    let others = "names without an upstream of their own";
    for (options, expected) in [
        ("-u 1.1.1.1,fallback", Some(("1.1.1.1:853", others))),
        (
            "-u 1.1.1.1 -u udp://10.0.0.1,domain=a,fallback",
            Some(("udp://10.0.0.1:53", "a.")),
        ),
        ("-u 1.1.1.1 -u 9.9.9.9,fallback", None),
        (
            "-u 1.1.1.1 -u 10.0.0.1,domain=a,fallback -u 10.0.0.2,domain=a",
            None,
        ),
    ] {
        let expected = expected.map(|(upstream, names)| {
            format!(
                "--upstream: \"{upstream}\": fallback: no effect, since every upstream for {names} \
                 has it: remove it, or add an upstream without it"
            )
        });
        let found = warnings(options);
        let found = found.iter().find(|one| one.contains("fallback: no effect"));
        assert_eq!(found, expected.as_ref(), "{options}");
    }
}
