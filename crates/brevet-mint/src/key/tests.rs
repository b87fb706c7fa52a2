use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use tempfile::TempDir;
use x509_parser::prelude::FromDer;

use super::*;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token.key");
    (directory, path)
}

fn load(path: &Path) -> Result<SigningKey<TaskTokens>, KeyError> {
    SigningKey::load_or_create(path, &SystemRandom::new())
}

#[test]
fn a_key_is_made_once_for_its_owner_alone_and_found_again() {
    let (directory, path) = place();
    let made = load(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 1));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left behind");
    assert_eq!(load(&path).unwrap().public_jwk(), made.public_jwk());
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert_eq!(load(&path).unwrap().public_jwk(), made.public_jwk());
}

#[test]
fn processes_that_start_together_end_up_with_one_key() {
    let (directory, path) = place();
    let kids: Vec<KeyId> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| load(&path).unwrap().kid().clone())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(kids.iter().all(|kid| *kid == kids[0]));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn k4_a_file_that_others_can_touch_is_refused() {
    let (_directory, path) = place();
    load(&path).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610, 0o4640] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(load(&path), Err(KeyError::Mode { mode: found, .. }) if found == mode), "{mode:o}");
    }
}

#[test]
fn k4_a_file_of_somebody_else_is_refused() {
    let (_directory, mut path) = place();
    if geteuid().is_root() {
        load(&path).unwrap();
        chown(&path, Some(12_345), None).unwrap();
    } else {
        path = "/etc/passwd".into();
    }
    assert!(matches!(load(&path), Err(KeyError::Owner { .. })));
}

#[test]
fn k4_only_a_regular_file_reached_directly_is_read() {
    let (directory, path) = place();
    load(&path).unwrap();
    let at = |name: &str| directory.path().join(name);
    symlink(&path, at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    for name in ["link", "dangling"] {
        assert!(matches!(load(&at(name)), Err(KeyError::SymbolicLink(_))), "{name}");
    }
    assert!(!at("nowhere").exists());
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    for path in [at("fifo"), directory.path().into()] {
        assert!(matches!(load(&path), Err(KeyError::NotAFile(_))), "{path:?}");
    }
    assert!(matches!(load(&at("missing").join("key")), Err(KeyError::Io { .. })));
}

#[test]
fn a_file_that_holds_something_else_is_refused_and_kept() {
    let (_directory, path) = place();
    load(&path).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    for bad in [
        String::new(),
        good.replace("PRIVATE KEY", "EC PRIVATE KEY"),
        good.split_at(good.len() / 2).0.to_owned(),
        format!("{good}{good}"),
        [lines[0], lines[2], lines[1], lines[3]].join("\n"),
    ] {
        fs::write(&path, &bad).unwrap();
        assert!(matches!(load(&path), Err(KeyError::Malformed(_))), "{bad}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    fs::write(&path, "x".repeat(1 << 20)).unwrap();
    assert!(matches!(load(&path), Err(KeyError::Io { .. })));
}

#[test]
fn k2_the_kid_is_the_thumbprint_of_rfc_7638() {
    // The key and thumbprint of RFC 9449 §4.1 and §6.1.
    let point = Point {
        curve: Curve::P256,
        x: "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs".into(),
        y: "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA".into(),
    };
    assert_eq!(point.thumbprint().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    let key = SigningKey::<TaskTokens>::ephemeral(&SystemRandom::new()).unwrap();
    assert_eq!(key.kid().as_str(), key.thumbprint().to_string());
}

#[test]
fn k2_no_two_keys_share_a_kid() {
    let rng = SystemRandom::new();
    let kids: std::collections::BTreeSet<KeyId> =
        (0..64).map(|_| SigningKey::<TaskTokens>::ephemeral(&rng).unwrap().kid().clone()).collect();
    assert_eq!(kids.len(), 64);
}

#[test]
fn l12_debug_and_errors_show_the_kid_or_the_path_and_nothing_else() {
    let (_directory, path) = place();
    let key = load(&path).unwrap();
    assert_eq!(format!("{key:?}"), format!("SigningKey {{ kid: {:?}, .. }}", key.kid()));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('M', "_", 1)).unwrap();
    let error = load(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} does not hold the expected private key in PEM", path.display())
    );
}

#[test]
fn a_checkpoint_is_signed_verifiably() {
    let rng = SystemRandom::new();
    let key = SigningKey::<Checkpoints>::ephemeral(&rng).unwrap();
    let signature = key.sign(b"checkpoint", &rng).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_point());
    assert!(public.verify(b"checkpoint", &signature).is_ok());
    assert!(public.verify(b"checkpoinT", &signature).is_err());
}

#[test]
fn a_key_is_shown_without_one_being_made() {
    let (directory, path) = place();
    let rng = SystemRandom::new();
    assert!(SigningKey::<TaskTokens>::load(&path, &rng).unwrap().is_none());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is made");
    let made = load(&path).unwrap();
    let found = SigningKey::<TaskTokens>::load(&path, &rng).unwrap().unwrap();
    assert_eq!(found.public_jwk(), made.public_jwk());
}

#[test]
fn the_public_half_in_pem_is_read_back_as_the_same_key() {
    let key = SigningKey::<Checkpoints>::ephemeral(&SystemRandom::new()).unwrap();
    let der = pem::decode("PUBLIC KEY", &key.public_pem()).unwrap();
    assert_eq!(PublicJwk::from_spki(&der).as_ref(), Some(key.public_jwk()));
    let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&der).unwrap();
    assert_eq!(&*parsed.subject_public_key.data, key.public_point());
    assert_eq!(PublicJwk::from_spki(der.get(1..).unwrap()), None);
    assert_eq!(PublicJwk::from_spki(&[&der[..], &[0]].concat()), None);
}
