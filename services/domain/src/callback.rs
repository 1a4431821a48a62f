//! The callback life cycle (owned by the callback builder).
