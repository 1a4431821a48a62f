//! The model file: what is written is read back, and nothing else is ever accepted.

use std::path::PathBuf;

use intent::artefact::ArtefactError;
use intent::corpus::Corpus;
use intent::features::Features;
use intent::model::{Model, Scratch};
use intent::train::{Options, train};

fn small_model(seed: u64) -> Model {
    let text = "intent\tlang\ttext\n\
        a\ten\twhere is my refund\na\ten\twhen do I get my refund\na\tes\tdónde está mi reembolso\n\
        a\ten\trefund please\nb\ten\tI want a payment plan\nb\tes\tquiero un plan de pagos\n\
        b\ten\tcan I pay monthly\nb\ten\tpay in installments\noos\ten\torder a pizza\noos\ten\twhat is the weather\n";
    let corpus = Corpus::parse([("small", text)]).unwrap();
    let options = Options {
        seed,
        bits: 6,
        epochs: 4,
        ..Options::default()
    };
    train(&corpus, None, &options, &|_| {}).unwrap()
}

fn scratch_file(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("intent.model")
}

#[test]
fn what_is_written_is_read_back_and_predicts_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let model = small_model(1);
    model.save(&scratch_file(&directory)).unwrap();
    let read = Model::load(&scratch_file(&directory)).unwrap();
    assert_eq!(read.id(), model.id());
    assert_eq!(read.manifest(), model.manifest());
    assert_eq!(read.to_bytes(), model.to_bytes());
    let (mut features, mut scratch) = (Features::default(), Scratch::default());
    for text in ["where is my refund", "monthly plan", "pizza", "", "x"] {
        features.read(text);
        assert_eq!(
            read.predict(&features, &mut scratch),
            model.predict(&features, &mut scratch),
            "{text}"
        );
    }
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = small_model(1).to_bytes();
    let mut cuts: Vec<usize> = (0..64).chain(bytes.len() - 64..bytes.len()).collect();
    cuts.extend((0..bytes.len()).step_by(977));
    for cut in cuts {
        let refused = Model::from_bytes(&bytes[..cut]).unwrap_err();
        assert!(
            matches!(refused, ArtefactError::Length { .. }),
            "cut at {cut}: {refused}"
        );
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(
        Model::from_bytes(&longer).unwrap_err(),
        ArtefactError::Length { .. }
    ));
}

#[test]
fn a_file_with_any_byte_changed_is_refused() {
    let seed = runtime::local::seed();
    let bytes = small_model(1).to_bytes();
    let mut state = seed | 1;
    for round in 0..4_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The header and the manifest are short beside the body: aim at them half the time.
        let reach = if round % 2 == 0 {
            4_096.min(bytes.len())
        } else {
            bytes.len()
        };
        let at = (state >> 33) as usize % reach;
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (state & 7);
        assert!(
            Model::from_bytes(&changed).is_err(),
            "seed {seed}: byte {at} changed unnoticed"
        );
    }
}

#[test]
fn each_refusal_says_what_is_wrong() {
    let bytes = small_model(1).to_bytes();
    let told = |bytes: &[u8]| Model::from_bytes(bytes).unwrap_err().to_string();
    assert!(told(b"hello").contains("length"), "{}", told(b"hello"));
    let mut other = bytes.clone();
    other[0] = b'X';
    assert!(told(&other).contains("no intent model"));
    let mut other = bytes.clone();
    other[8] = 9;
    assert_eq!(
        told(&other),
        "artefact: format: version 1, not 9: train it again with this build"
    );
    let mut other = bytes.clone();
    let last = other.len() - 100;
    other[last] ^= 1;
    assert!(told(&other).contains("sha256") && told(&other).contains("corrupt"));
    // A manifest of another build, correctly hashed.
    let text = String::from_utf8_lossy(&bytes[24..400]).into_owned();
    assert!(text.contains("\"feature_spec\":1"));
    let at = 24 + text.find("\"feature_spec\":1").unwrap() + "\"feature_spec\":".len();
    let mut other = bytes;
    other[at] = b'7';
    rehash(&mut other);
    assert_eq!(
        told(&other),
        "artefact: feature_spec: version 1, not 7: train it again with this build"
    );
    // Calibration is not optional.
    let model = small_model(1);
    let mut bytes = model.to_bytes();
    let from = bytes
        .windows(13)
        .position(|window| window == b"\"calibration\"")
        .unwrap();
    bytes[from + 1] = b'K';
    rehash(&mut bytes);
    assert!(told(&bytes).contains("manifest"), "{}", told(&bytes));
}

#[test]
fn a_missing_file_is_named() {
    let refused = Model::load(std::path::Path::new("no/such.model"))
        .unwrap_err()
        .to_string();
    assert!(refused.starts_with("no/such.model:"), "{refused}");
}

fn rehash(bytes: &mut [u8]) {
    use sha2::{Digest as _, Sha256};
    let content = bytes.len() - 32;
    let hash = Sha256::digest(&bytes[..content]);
    bytes[content..].copy_from_slice(&hash);
}
