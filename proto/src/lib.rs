//! The wire: every contract under `proto/trunkline`, compiled at build time by
//! `build.rs` without protoc, and (in [`convert`]) its translation from and to the
//! domain's types. Conversion is validation: what comes out of it can be trusted.
//!
//! Generated code is not committed; the `.proto` files are the contract, held by
//! `buf lint` and a breaking-change check.

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated code; its comments are the proto files'"
    )]
    pub mod cti {
        pub mod v1 {
            tonic::include_proto!("trunkline.cti.v1");
        }
    }
    pub mod routing {
        pub mod v1 {
            tonic::include_proto!("trunkline.routing.v1");
        }
    }
    pub mod callback {
        pub mod v1 {
            tonic::include_proto!("trunkline.callback.v1");
        }
    }
    pub mod outcomes {
        pub mod v1 {
            tonic::include_proto!("trunkline.outcomes.v1");
        }
    }
    pub mod event {
        pub mod v1 {
            tonic::include_proto!("trunkline.event.v1");
        }
    }
    pub mod intent {
        pub mod v1 {
            tonic::include_proto!("trunkline.intent.v1");
        }
    }
}

pub use generated::*;

pub mod convert;
