//! The limits of a query, in one place: code, contract and documents say the same.

/// Longest utterance, in bytes.
pub const UTTERANCE_BYTES_MAX: usize = 2_048;

/// Most keys pressed.
pub const DIGITS_MAX: usize = 32;

/// Longest language tag, in bytes (BCP 47's own recommendation).
pub const LANGUAGE_BYTES_MAX: usize = 35;

/// Longest name of a line, in bytes.
pub const LINE_BYTES_MAX: usize = 64;

/// Most queries in a frame.
pub const QUERIES_MAX: usize = 256;

/// Longest frame taken off the wire, in bytes: a full frame of utterances of 64 KiB each
/// still decodes, so that each gets its own error and the stream goes on.
pub const FRAME_BYTES_MAX: usize = 20 * 1_024 * 1_024;
