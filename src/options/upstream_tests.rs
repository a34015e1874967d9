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
    let warning = "--upstream: fallback: no effect, since every upstream of the same names has \
                   it: remove it from one of them";
    for (options, expected) in [
        ("-u 1.1.1.1,fallback", true),
        ("-u 1.1.1.1 -u udp://10.0.0.1,domain=a,fallback", true),
        ("-u 1.1.1.1 -u 9.9.9.9,fallback", false),
        (
            "-u 1.1.1.1 -u 10.0.0.1,domain=a,fallback -u 10.0.0.2,domain=a",
            false,
        ),
    ] {
        let has_warning = warnings(options).iter().any(|one| one == warning);
        assert_eq!(has_warning, expected, "{options}");
    }
}
