//! Conversions of trunkline.routing.v1.
