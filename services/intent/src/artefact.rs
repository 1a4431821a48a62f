//! A model as one file.
//!
//! ```text
//! "TLINTENT" | format u32 | manifest bytes u32 | body bytes u64 | manifest (JSON)
//!            | body: topic rows, language rows, seen map | SHA-256 of all before
//! ```
//! Little-endian. Everything is checked before it is used, sizes before they are
//! allocated; a file that does not fit is refused with the field, the limit and what
//! came. The hash is also the model's name.
//!
//! Memory mapping was not needed: a file is 3 MB and is read in a millisecond.

use std::io::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::corpus::hex;
use crate::features::FEATURE_SPEC;
use crate::linear::{Linear, padded};
use crate::model::{FORMAT, Manifest, Model, SEEN_BITS, Seen, Shape};
use crate::train::CLASSES_MAX;

const MAGIC: &[u8; 8] = b"TLINTENT";
const HEADER_BYTES: usize = 24;
const HASH_BYTES: usize = 32;
const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Largest artefact, in bytes.
pub const ARTEFACT_BYTES_MAX: u64 = 512 << 20;

/// Why an artefact was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Shorter or longer than it says.
    #[error("artefact: length: {wanted} bytes, not {found}: truncated, or not whole yet")]
    Length {
        /// As the header says.
        wanted: u64,
        /// As found.
        found: u64,
    },
    /// Not an artefact of this project.
    #[error("artefact: magic: \"TLINTENT\" at the start: this is no intent model")]
    Magic,
    /// Another version.
    #[error("artefact: {field}: version {wanted}, not {found}: train it again with this build")]
    Version {
        /// Format or feature specification.
        field: &'static str,
        /// What this build reads.
        wanted: u32,
        /// What it is.
        found: u32,
    },
    /// The bytes are not those that were written.
    #[error("artefact: sha256: {wanted} as written in it, not {found}: corrupt")]
    Hash {
        /// As written.
        wanted: String,
        /// As computed.
        found: String,
    },
    /// Something in it does not fit.
    #[error("artefact: {0}")]
    Content(String),
}

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// When it cannot be read, or is not whole, of this version, unchanged and
    /// consistent.
    pub fn load(path: &Path) -> Result<Self, ArtefactError> {
        let file = |source| ArtefactError::File {
            path: path.display().to_string(),
            source,
        };
        let found = std::fs::metadata(path).map_err(file)?.len();
        if found > ARTEFACT_BYTES_MAX {
            return Err(ArtefactError::Length {
                wanted: ARTEFACT_BYTES_MAX,
                found,
            });
        }
        Self::from_bytes(&std::fs::read(path).map_err(file)?)
    }

    /// Writes a model file: beside it first, then renamed, so that a reader sees the old
    /// one or the new one, whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ArtefactError> {
        let error = |source| ArtefactError::File {
            path: path.display().to_string(),
            source,
        };
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = std::path::PathBuf::from(beside);
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&beside)?;
            file.write_all(&self.to_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)
        };
        write().map_err(|source| {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&beside);
            error(source)
        })
    }

    /// The artefact's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content();
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    pub(crate) fn checksum(&self) -> String {
        hex(&Sha256::digest(self.content()))
    }

    fn content(&self) -> Vec<u8> {
        // Plain data in, text out: there is nothing that could fail.
        let manifest = serde_json::to_vec(self.manifest()).expect("a manifest is always JSON");
        let body =
            self.topics().rows().len() + self.languages().rows().len() + self.seen().0.len() * 8;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + manifest.len() + body + HASH_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(
            &u32::try_from(manifest.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        bytes.extend_from_slice(&(body as u64).to_le_bytes());
        bytes.extend_from_slice(&manifest);
        bytes.extend(
            self.topics()
                .rows()
                .iter()
                .map(|weight| weight.cast_unsigned()),
        );
        bytes.extend(
            self.languages()
                .rows()
                .iter()
                .map(|weight| weight.cast_unsigned()),
        );
        for word in &self.seen().0 {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// A model from an artefact's bytes.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArtefactError> {
        let (manifest_bytes, body) = split(bytes)?;
        let manifest: Manifest = serde_json::from_slice(manifest_bytes).map_err(|error| {
            ArtefactError::Content(format!("manifest: not what this build writes: {error}"))
        })?;
        if manifest.feature_spec != FEATURE_SPEC {
            return Err(ArtefactError::Version {
                field: "feature_spec",
                wanted: FEATURE_SPEC,
                found: manifest.feature_spec,
            });
        }
        check(&manifest).map_err(ArtefactError::Content)?;
        let topic_bytes = rows_bytes(&manifest.topics, manifest.labels.len())?;
        let language_bytes =
            rows_bytes(&manifest.language_identification, manifest.languages.len())?;
        let seen_bytes = 1 << (SEEN_BITS - 3);
        if body.len() != topic_bytes + language_bytes + seen_bytes {
            return Err(ArtefactError::Content(format!(
                "body: {} bytes, not {}",
                topic_bytes + language_bytes + seen_bytes,
                body.len()
            )));
        }
        let (topics, rest) = body.split_at(topic_bytes);
        let (languages, seen) = rest.split_at(language_bytes);
        let topics = linear(&manifest.topics, manifest.labels.len(), topics)?;
        let languages = linear(
            &manifest.language_identification,
            manifest.languages.len(),
            languages,
        )?;
        let seen = seen
            .chunks_exact(8)
            .map(|chunk| {
                chunk
                    .iter()
                    .rev()
                    .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
            })
            .collect();
        Ok(Self::new(manifest, topics, languages, Seen(seen)))
    }
}

/// Header, lengths and hash; then the manifest's bytes and the body.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), ArtefactError> {
    let found = bytes.len() as u64;
    let too_short = ArtefactError::Length {
        wanted: (HEADER_BYTES + HASH_BYTES) as u64,
        found,
    };
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(too_short);
    };
    if &header[..8] != MAGIC {
        return Err(ArtefactError::Magic);
    }
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if word(8) != FORMAT {
        return Err(ArtefactError::Version {
            field: "format",
            wanted: FORMAT,
            found: word(8),
        });
    }
    let manifest_bytes = word(12) as usize;
    if manifest_bytes > MANIFEST_BYTES_MAX {
        return Err(ArtefactError::Content(format!(
            "manifest: at most {MANIFEST_BYTES_MAX} bytes, not {manifest_bytes}"
        )));
    }
    let body_bytes = u64::from(word(16)) | u64::from(word(20)) << 32;
    let wanted = ((HEADER_BYTES + HASH_BYTES + manifest_bytes) as u64).saturating_add(body_bytes);
    if wanted != found {
        return Err(ArtefactError::Length { wanted, found });
    }
    let (content, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
    let computed = Sha256::digest(content);
    if computed.as_slice() != hash {
        return Err(ArtefactError::Hash {
            wanted: hex(hash),
            found: hex(&computed),
        });
    }
    let (manifest, rest) = rest.split_at(manifest_bytes);
    Ok((manifest, &rest[..rest.len() - HASH_BYTES]))
}

fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.format != FORMAT {
        return Err(format!(
            "manifest: format: {FORMAT}, not {}",
            manifest.format
        ));
    }
    if !(2..=CLASSES_MAX + 1).contains(&manifest.labels.len()) {
        return Err(format!(
            "labels: 2 to {}, not {}",
            CLASSES_MAX + 1,
            manifest.labels.len()
        ));
    }
    if !(1..=64).contains(&manifest.languages.len()) {
        return Err(format!(
            "languages: 1 to 64, not {}",
            manifest.languages.len()
        ));
    }
    manifest.calibration.check(manifest.labels.len())
}

fn rows_bytes(shape: &Shape, classes: usize) -> Result<usize, ArtefactError> {
    if !(1..=24).contains(&shape.bits) {
        return Err(ArtefactError::Content(format!(
            "bits: 1 to 24, not {}",
            shape.bits
        )));
    }
    Ok(padded(classes) << shape.bits)
}

fn linear(shape: &Shape, classes: usize, rows: &[u8]) -> Result<Linear, ArtefactError> {
    let rows = rows.iter().map(|byte| byte.cast_signed()).collect();
    Linear::from_parts(classes, shape.bits, shape.scale, shape.bias.clone(), rows)
        .map_err(ArtefactError::Content)
}
