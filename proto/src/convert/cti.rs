//! Conversions of trunkline.cti.v1.
