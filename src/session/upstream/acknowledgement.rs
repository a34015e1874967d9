//! TCP acknowledgements of data that an upstream has sent.
//!
//! A peer with more data to send may wait until earlier data is acknowledged (RFC 896): after a
//! session ticket, the length of a message or the reply to another query. The kernel sends the
//! acknowledgement with the next query, or delays it by 40 ms. If few replies are awaited, each
//! may arrive one query late, so it is sent at once. With more, the next query follows soon and
//! replies arrive together; it is sent a moment later if no query has followed.

/// The state of the acknowledgement of received data.
#[derive(Debug, Default)]
pub(super) struct Acknowledgement {
    is_owed: bool,
}

impl Acknowledgement {
    /// Maximum number of awaited replies for which an acknowledgement is sent at once.
    const FEW: usize = 3;

    /// Records that data was received.
    pub(super) fn on_received(&mut self) {
        self.is_owed = true;
    }

    /// Records that `sent` bytes were sent while this number of replies is awaited. Returns whether
    /// an acknowledgement is to be sent at once, which is also the case within a message
    /// (`is_part`).
    pub(super) fn on_sent(&mut self, sent: usize, awaited: usize, is_part: bool) -> bool {
        let is_with_data = sent > 0;
        let is_needed = is_part || awaited > 0;
        self.is_owed &= is_needed && !is_with_data;
        (is_part || awaited <= Self::FEW) && self.take()
    }

    /// Returns whether an acknowledgement is to be sent later.
    pub(super) fn is_owed(&self) -> bool {
        self.is_owed
    }

    /// Records that the acknowledgement is sent. Returns whether it was owed.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.is_owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether data is acknowledged at once, and whether it is later.
    fn acknowledged(sent: usize, awaited: usize, is_part: bool) -> (bool, bool) {
        let mut acknowledgement = Acknowledgement::default();
        acknowledgement.on_received();
        let is_now = acknowledgement.on_sent(sent, awaited, is_part);
        (is_now, acknowledgement.is_owed())
    }

    #[test]
    fn data_is_acknowledged_at_once_for_few_replies_and_later_for_many() {
        let few = Acknowledgement::FEW;
        assert_eq!(acknowledged(0, 0, false), (false, false));
        assert_eq!(acknowledged(0, 1, false), (true, false));
        assert_eq!(acknowledged(0, few, false), (true, false));
        assert_eq!(acknowledged(0, few + 1, false), (false, true));
        assert_eq!(acknowledged(0, few + 1, true), (true, false));
        assert_eq!(acknowledged(0, 0, true), (true, false));
        // A query carries the acknowledgement.
        assert_eq!(acknowledged(1, few + 1, false), (false, false));
        assert_eq!(acknowledged(1, 1, false), (false, false));
    }
}
