//! WebSockets: the handshake, the frames, and passing them both ways.

pub mod frames;
pub(crate) mod handshake;
pub(crate) mod relay;
