//! Flow-control windows (RFC 9113, section 5.2 and 6.9).

/// The initial length of every window, in bytes. It is never changed for received data.
pub(super) const WINDOW_LEN: u32 = 65_535;

/// An error: the peer exceeded a window, or made a window longer than 2^31 - 1 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowExceeded;

/// The number of bytes that the peer may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow(u32);

impl ReceiveWindow {
    pub(super) const fn new() -> Self {
        Self(WINDOW_LEN)
    }

    /// Counts received bytes.
    pub(super) fn consume(&mut self, len: u32) -> Result<(), WindowExceeded> {
        self.0 = self.0.checked_sub(len).ok_or(WindowExceeded)?;
        Ok(())
    }

    /// Extends the window to its initial length if at least half is used. Returns the number of
    /// bytes for the `WINDOW_UPDATE` frame, or 0.
    pub(super) fn refill(&mut self) -> u32 {
        if self.0 > WINDOW_LEN / 2 {
            return 0;
        }
        WINDOW_LEN - std::mem::replace(&mut self.0, WINDOW_LEN)
    }
}

/// The number of bytes that may be sent. A change of the settings can make it negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow(i32);

impl SendWindow {
    pub(super) const fn new(len: i32) -> Self {
        Self(len)
    }

    /// Returns the number of bytes that may be sent.
    pub(super) fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }

    /// Counts sent bytes, at most [`SendWindow::len`].
    pub(super) fn consume(&mut self, len: usize) {
        self.0 = self
            .0
            .saturating_sub(i32::try_from(len).unwrap_or(i32::MAX));
    }

    /// Extends the window, or shortens it by a negative number of bytes.
    pub(super) fn extend(&mut self, len: i32) -> Result<(), WindowExceeded> {
        self.0 = self.0.checked_add(len).ok_or(WindowExceeded)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_extended_when_half_is_used() {
        let mut window = ReceiveWindow::new();
        assert_eq!((window.consume(32_767), window.refill()), (Ok(()), 0));
        assert_eq!((window.consume(1), window.refill()), (Ok(()), 32_768));
        assert_eq!(
            (window.consume(65_535), window.consume(0)),
            (Ok(()), Ok(()))
        );
        assert_eq!(window.consume(1), Err(WindowExceeded));
        assert_eq!((window.refill(), window.refill()), (65_535, 0));
        assert_eq!(window.consume(65_536), Err(WindowExceeded));
    }

    #[test]
    fn send_window_may_be_negative_and_is_bounded() {
        let mut window = SendWindow::new(10);
        window.consume(4);
        assert_eq!(
            (window.len(), window.extend(-8), window.len()),
            (6, Ok(()), 0)
        );
        assert_eq!((window.extend(3), window.len()), (Ok(()), 1));
        assert_eq!(window.extend(i32::MAX - 1), Ok(()));
        assert_eq!(window.extend(1), Err(WindowExceeded));
    }
}
