//! What a channel needs of whatever carries its bytes: two halves that two threads may drive at once.

use std::io;

/// The half that sends.
pub(super) trait Outgoing: Send {
    /// Hands over as many bytes as can be taken without waiting, and says how many. Not to be called while another
    /// thread uses the other half.
    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Whether bytes that `offer` took still need a `write_all`, be it of nothing, to reach the wire.
    fn has_backlog(&self) -> bool {
        false
    }

    /// Writes everything, waiting as needed; at most the idle timeout between two bytes.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// The half that receives.
pub(super) trait Incoming: Send {
    /// Fills `buffer`, waiting as needed; at most the idle timeout between two bytes. The end of the stream is
    /// `UnexpectedEof`.
    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()>;
}

/// Both halves, and a way to make calls on both fail at once from any thread.
pub(super) struct Wire {
    pub(super) outgoing: Box<dyn Outgoing>,
    pub(super) incoming: Box<dyn Incoming>,
    pub(super) hang_up: Box<dyn Fn() + Send + Sync>,
}
