//! The key file: 64 hex digits, mode 0600, and a lock while somebody signs with it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use rand::{TryRng, rngs::SysRng};
use types::{PublicKey, Signature};
use zeroize::Zeroizing;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Most bytes that a key file may have.
const FILE_BYTES_MAX: u64 = 256;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be made, read or locked.
    #[error("key file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Group or world may read or write it.
    #[error("key file {path} has mode {mode:o}: `chmod 600 {path}`")]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 64 hex digits.
    #[error("key file {0} does not hold 64 hex digits")]
    Format(PathBuf),
    /// Another signer, here or in another process, holds it.
    #[error("key file {0} is in use")]
    InUse(PathBuf),
}

/// A validator's private key. It leaves this crate as signatures only; its memory is wiped when it is dropped.
pub struct ValidatorKey {
    signing: SigningKey,
    file: Option<(PathBuf, File)>,
}

impl ValidatorKey {
    /// A key from its seed, for tests and simulated validators.
    pub fn from_seed(seed: [u8; 32]) -> ValidatorKey {
        ValidatorKey { signing: SigningKey::from_bytes(&Zeroizing::new(seed)), file: None }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.signing.sign(message).to_bytes())
    }

    /// Keeps every other signer away from the key file until this key is dropped.
    pub(crate) fn lock(&self) -> Result<(), KeyError> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => KeyError::InUse(path.clone()),
            TryLockError::Error(source) => KeyError::File { path: path.clone(), source },
        })
    }
}

impl std::fmt::Debug for ValidatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ValidatorKey(public {})", self.public())
    }
}

/// Makes a new key file with mode 0600. An existing file is left alone, and an error.
///
/// # Errors
/// [`KeyError::File`].
pub fn create(path: &Path) -> Result<ValidatorKey, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut seed = Zeroizing::new([0u8; 32]);
    SysRng.try_fill_bytes(&mut *seed).map_err(|error| failed(io::Error::other(error)))?;
    let mut text = Zeroizing::new(Vec::with_capacity(65));
    for byte in seed.iter() {
        text.push(HEX[usize::from(byte >> 4)]);
        text.push(HEX[usize::from(byte & 15)]);
    }
    text.push(b'\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    load(path)
}

/// Reads a key file. It is locked only once a signer opens with it.
///
/// # Errors
/// [`KeyError`].
pub fn load(path: &Path) -> Result<ValidatorKey, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
    (&file).take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    let seed = parse(text.trim_ascii()).ok_or_else(|| KeyError::Format(path.to_owned()))?;
    Ok(ValidatorKey { signing: SigningKey::from_bytes(&seed), file: Some((path.to_owned(), file)) })
}

fn parse(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0u8; 32]);
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in seed.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: &u8| char::from(*c).to_digit(16);
        *byte = u8::try_from(digit(pair.first()?)? * 16 + digit(pair.get(1)?)?).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn made_once_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validator.key");
        let key = create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&path).unwrap().public(), key.public());
        assert!(key.public().verify_strict(b"x", &key.sign(b"x")).is_ok());
        let before = fs::read(&path).unwrap();
        assert!(matches!(create(&path), Err(KeyError::File { .. })));
        assert_eq!(fs::read(&path).unwrap(), before, "an existing key is left alone");
        assert_ne!(create(&folder.path().join("other")).unwrap().public(), key.public());
    }

    #[test]
    fn refuses_what_others_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validator.key");
        create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(load(&path), Err(KeyError::Mode { mode: found, .. }) if found == mode));
        }
    }

    #[test]
    fn refuses_what_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        for (i, text) in ["", "00", &"0".repeat(63), &"0".repeat(65), &"x".repeat(64)].iter().enumerate() {
            let path = folder.path().join(i.to_string());
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
            assert!(matches!(load(&path), Err(KeyError::Format(_))), "{text}");
        }
    }

    #[test]
    fn one_signer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validator.key");
        let first = create(&path).unwrap();
        first.lock().unwrap();
        let second = load(&path).unwrap();
        assert!(matches!(second.lock(), Err(KeyError::InUse(_))));
        drop(first);
        second.lock().unwrap();
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let key = ValidatorKey::from_seed([7; 32]);
        assert!(!format!("{key:?}").contains("0707"));
    }
}
