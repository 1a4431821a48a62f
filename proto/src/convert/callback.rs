//! Conversions of trunkline.callback.v1.
