//! Generates the wire types and services from `proto/`, without a system `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

/// Messages with a field that no log may show. Their `Debug` is in `src/redacted.rs`.
const WITH_SECRETS: [&str; 8] = [
    ".brevet.v1.CreateTaskResponse",
    ".brevet.v1.Credential",
    ".brevet.v1.DelegateTaskRequest",
    ".brevet.v1.DelegateTaskResponse",
    ".brevet.v1.RenewCredentialRequest",
    ".brevet.v1.ReturnCredentialRequest",
    ".brevet.v1.IntrospectCredentialRequest",
    ".brevet.v1.IssueCredentialRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let package = root.join("brevet/v1");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", package.display());

    let mut files: Vec<PathBuf> =
        fs::read_dir(&package)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let descriptors = protox::compile(&files, [&root])?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps in order, so that equal messages are equal bytes.
        .btree_map(".brevet.v1")
        .skip_debug(WITH_SECRETS)
        .compile_fds(descriptors)?;
    Ok(())
}
