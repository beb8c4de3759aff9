//! Who a party is under TLS: a self-signed certificate and its key, as two PEM files. Trust is the other party's
//! certificate file itself, so names and dates in certificates mean nothing here.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use crate::error::RunError;

/// The file of a party's directory that the other party gets.
pub const CERTIFICATE_FILE: &str = "certificate.pem";

/// The file of a party's directory that nobody else gets.
pub const KEY_FILE: &str = "key.pem";

/// A party's certificate with its private key. The key is wiped from memory on drop.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Makes a new identity and writes it into `directory`, which is made as well if need be: `certificate.pem` to
    /// give to the other party, and `key.pem`, readable by the owner alone.
    ///
    /// # Errors
    /// `File`; an identity that is already there is never overwritten.
    pub fn create_in(directory: &Path) -> Result<Identity, RunError> {
        fs::create_dir_all(directory).map_err(|source| file_error(directory, "create", source))?;
        let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        let made = rcgen::generate_simple_self_signed(vec!["marill".to_owned()])
            .map_err(|error| file_error(&key_path, "make a key for", io::Error::other(error)))?;
        let key_pem = Zeroizing::new(made.signing_key.serialize_pem());
        write_new(&key_path, key_pem.as_bytes(), Access::Owner)?;
        write_new(&certificate_path, made.cert.pem().as_bytes(), Access::Everybody)?;
        Identity::load(directory)
    }

    /// Loads what [`Identity::create_in`] wrote.
    ///
    /// # Errors
    /// `File` if a file cannot be read, holds something else, or the key is not the certificate's.
    pub fn load(directory: &Path) -> Result<Identity, RunError> {
        let certificate = load_certificate(&directory.join(CERTIFICATE_FILE))?;
        let key_path = directory.join(KEY_FILE);
        let pem =
            Zeroizing::new(fs::read(&key_path).map_err(|source| file_error(&key_path, "read", source))?);
        let unusable =
            |text: String| file_error(&key_path, "use", io::Error::new(ErrorKind::InvalidData, text));
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| unusable(format!("not a private key in pem form ({error})")))?;
        let identity = Identity { certificate, key };
        CertifiedKey::from_der(vec![identity.certificate.clone()], identity.key(), &ring::default_provider())
            .map_err(|error| unusable(format!("not the key of {CERTIFICATE_FILE} beside it ({error})")))?;
        Ok(identity)
    }

    /// The certificate as the other party trusts it.
    pub fn as_peer(&self) -> PeerCertificate {
        PeerCertificate { certificate: self.certificate.clone() }
    }

    /// A short name of the certificate, to compare by eye.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The one certificate that the peer must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    certificate: CertificateDer<'static>,
}

impl PeerCertificate {
    /// Loads the peer's `certificate.pem`.
    ///
    /// # Errors
    /// `File` if it cannot be read or holds no certificate.
    pub fn load(path: &Path) -> Result<PeerCertificate, RunError> {
        Ok(PeerCertificate { certificate: load_certificate(path)? })
    }

    /// A short name of the certificate, to compare by eye: `blake3:` and the first 16 bytes of the hash of its DER
    /// form in hexadecimal.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    pub(super) fn from_der(certificate: &CertificateDer<'_>) -> PeerCertificate {
        PeerCertificate { certificate: certificate.clone().into_owned() }
    }

    pub(super) fn is(&self, found: &CertificateDer<'_>) -> bool {
        self.certificate.as_ref() == found.as_ref()
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hex = blake3::hash(certificate.as_ref()).to_hex();
    format!("blake3:{}", &hex[..32])
}

fn load_certificate(path: &Path) -> Result<CertificateDer<'static>, RunError> {
    let pem = fs::read(path).map_err(|source| file_error(path, "read", source))?;
    CertificateDer::from_pem_slice(&pem).map_err(|error| {
        let text = format!("not a certificate in pem form ({error})");
        file_error(path, "use", io::Error::new(ErrorKind::InvalidData, text))
    })
}

enum Access {
    Owner,
    Everybody,
}

fn write_new(path: &Path, content: &[u8], access: Access) -> Result<(), RunError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match access {
            Access::Owner => 0o600,
            Access::Everybody => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = access;
    options
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|source| file_error(path, "create", source))
}

fn file_error(path: &Path, action: &'static str, source: io::Error) -> RunError {
    RunError::File { path: PathBuf::from(path), action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_disk_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("server");
        let made = Identity::create_in(&home).unwrap();
        let loaded = Identity::load(&home).unwrap();
        assert_eq!(made.fingerprint(), loaded.fingerprint());
        let peer = PeerCertificate::load(&home.join(CERTIFICATE_FILE)).unwrap();
        assert!(peer == made.as_peer());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(home.join(KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let again = Identity::create_in(&home).map(|_| ()).unwrap_err();
        assert!(matches!(again, RunError::File { action: "create", .. }), "{again}");
        assert_eq!(Identity::load(&home).unwrap().fingerprint(), made.fingerprint());
    }

    #[test]
    fn refuses_foreign_and_broken_files() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        Identity::create_in(&first).unwrap();
        Identity::create_in(&second).unwrap();
        fs::copy(second.join(KEY_FILE), first.join(KEY_FILE)).unwrap();
        let error = Identity::load(&first).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("not the key of certificate.pem"), "{error}");
        fs::write(second.join(CERTIFICATE_FILE), "hello").unwrap();
        let error = Identity::load(&second).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("not a certificate in pem form"), "{error}");
        let missing = PeerCertificate::load(&directory.path().join("nowhere.pem")).unwrap_err();
        assert!(matches!(missing, RunError::File { action: "read", .. }), "{missing}");
    }
}
