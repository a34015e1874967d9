//! The users of this host.

use nix::unistd::{Uid, User};

/// Returns the name of a user, if it is known, and the number.
pub fn label(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("{} ({uid})", user.name),
        _ => uid.to_string(),
    }
}
