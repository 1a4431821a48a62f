//! Conversions of trunkline.event.v1.
