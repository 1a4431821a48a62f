//! Compiles every contract under `trunkline/` in pure Rust: no protoc needed.
use std::path::{Path, PathBuf};

fn protos(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=trunkline");
    let mut files = Vec::new();
    protos(Path::new("trunkline"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_well_known_types(false)
        .compile_fds(descriptors)?;
    Ok(())
}
