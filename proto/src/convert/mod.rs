//! Wire to domain and back. One module a package; whatever comes out has been checked.

pub mod callback;
pub mod cti;
pub mod event;
pub mod routing;
