//! The forms of a line of a block list.
//!
//! | form | meaning |
//! |---|---|
//! | `name`, `*.name`, `.name` | block the name and the names below it |
//! | `0.0.0.0 name name ...` | the same for each name (hosts form, also `127.0.0.1`, `::`, `::1`) |
//! | `\|\|name^`, `\|\|name^$important` | the same (form of ad blockers) |
//! | `@@name`, `@@\|\|name^` | an exception: block neither the name nor the names below it |
//! | `# ...`, `! ...`, `[...]` | a comment |

use std::net::{IpAddr, Ipv4Addr};

use crate::wire::name::Name;

/// The effect of a line on its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Block,
    Allow,
}

/// Returns whether a line without leading space is a comment.
pub(super) fn is_comment(line: &str) -> bool {
    line.starts_with(['#', '!', '['])
}

/// Calls `action` with each name of a line. Returns the part of the line that cannot be used, if
/// there is one.
pub(super) fn read(line: &str, mut action: impl FnMut(Name, Effect)) -> Result<(), &str> {
    let content = line.trim();
    if content.is_empty() || is_comment(content) {
        return Ok(());
    }
    let content = match content.split_once(" #").or(content.split_once("\t#")) {
        Some((content, _)) => content.trim_end(),
        None => content,
    };
    let mut fields = content.split_ascii_whitespace();
    let first = fields.next().unwrap_or_default();
    // `fe80::1%lo0` has a zone.
    let address = first.split('%').next().unwrap_or_default();
    if let Ok(address) = address.parse::<IpAddr>() {
        let is_blocking = address.is_unspecified() || address.is_loopback();
        let mut unused = content == first;
        for field in fields {
            match field.parse() {
                _ if is_name_of_this_host(field) => {}
                Ok(name) if is_blocking => action(name, Effect::Block),
                // The line gives a name its true address.
                Ok(_) => {}
                Err(_) => unused = true,
            }
        }
        return if unused { Err(content) } else { Ok(()) };
    }
    let (pattern, effect) = match content.strip_prefix("@@") {
        Some(pattern) => (pattern, Effect::Allow),
        None => (content, Effect::Block),
    };
    let name = name_of(pattern).ok_or(content)?;
    action(name, effect);
    Ok(())
}

/// Returns whether a name in hosts form is not to be blocked: hosts files have the names of this
/// host, and lists in hosts form begin with them.
fn is_name_of_this_host(name: &str) -> bool {
    !name.contains('.') || name == "localhost.localdomain" || name.parse::<Ipv4Addr>().is_ok()
}

fn name_of(pattern: &str) -> Option<Name> {
    let name = match pattern.strip_prefix("||") {
        Some(rule) => {
            let (name, options) = rule.split_once('^')?;
            if !matches!(options, "" | "|" | "$important") {
                return None;
            }
            name
        }
        None => pattern,
    };
    let name = name
        .strip_prefix("*.")
        .or_else(|| name.strip_prefix('.'))
        .unwrap_or(name);
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of a line, with `+` before exceptions, and the part that cannot be used.
    fn read_all(line: &str) -> (String, Option<&str>) {
        let mut names = Vec::new();
        let unused = read(line, |name, effect| {
            let sign = if effect == Effect::Allow { "+" } else { "" };
            names.push(format!("{sign}{name}"));
        });
        (names.join(" "), unused.err())
    }

    #[test]
    fn forms_of_lines() {
        for (line, names) in [
            ("ads.example", "ads.example."),
            ("  Ads.Example.  ", "ads.example."),
            ("ads.example # why", "ads.example."),
            ("ads.example\t# why", "ads.example."),
            ("*.ads.example", "ads.example."),
            (".ads.example", "ads.example."),
            ("zip", "zip."),
            ("_dmarc.a-b.example\r", "_dmarc.a-b.example."),
            ("0.0.0.0 ads.example", "ads.example."),
            (
                "127.0.0.1\tads.example b.example",
                "ads.example. b.example.",
            ),
            (":: ads.example", "ads.example."),
            ("::1 ads.example#why", ""),
            ("0.0.0.0 ads.example #why", "ads.example."),
            ("||ads.example^", "ads.example."),
            ("||ads.example^|", "ads.example."),
            ("||*.ads.example^$important", "ads.example."),
            ("@@good.example", "+good.example."),
            ("@@||good.example^", "+good.example."),
            ("@@*.good.example", "+good.example."),
            ("", ""),
            ("# comment", ""),
            ("! Title: a list", ""),
            ("[Adblock Plus]", ""),
        ] {
            assert_eq!(read_all(line).0, names, "{line}");
        }
    }

    #[test]
    fn names_of_this_host_in_hosts_form_are_not_blocked() {
        for line in [
            "127.0.0.1 localhost",
            "127.0.0.1 localhost.localdomain",
            "127.0.0.1 local",
            "255.255.255.255 broadcasthost",
            "::1 ip6-localhost ip6-loopback",
            "fe80::1%lo0 localhost",
            "ff02::1 ip6-allnodes",
            "0.0.0.0 0.0.0.0",
            "192.168.1.1 router.lan",
        ] {
            assert_eq!(read_all(line), (String::new(), None), "{line}");
        }
    }

    #[test]
    fn lines_in_other_forms_are_not_used() {
        for line in [
            "||ads.example",
            "||ads.example^$third-party",
            "||ads.*^",
            "/ads[0-9]+/",
            "ads.*.example",
            "address=/ads.example/",
            "ads.example CNAME .",
            "http://ads.example/",
            "b\u{fc}cher.example",
            "0.0.0.0",
            "0.0.0.0 a..example",
            "@@",
            "@@@@a",
            ".",
            "*",
        ] {
            assert_eq!(read_all(line), (String::new(), Some(line)), "{line}");
        }
        let long = "a.".repeat(200);
        assert_eq!(read_all(&long), (String::new(), Some(long.as_str())));
    }
}
