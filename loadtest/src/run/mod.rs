//! Playing a scenario: the driver, the mesh as one process or as many, and what breaks it.

pub(crate) mod dev;
pub(crate) mod driver;
pub(crate) mod play;
pub(crate) mod processes;
pub(crate) mod roles;
