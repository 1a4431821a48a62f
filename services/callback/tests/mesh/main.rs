//! The callback role on a real Redis, between a routing and a switch that are played, so
//! that every fault can be put exactly where it hurts.

mod booking;
mod crash;
mod load;
mod mesh;
mod routing;
mod store;
mod switch;
mod windows;
mod world;
