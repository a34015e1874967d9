//! Certificates and keys in files.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::own::Authorities;
use crate::base::file;
use crate::config::Identity;

/// An error: a file cannot be used.
#[derive(Debug)]
pub struct FileError {
    /// The option or setting that names the file.
    option: &'static str,
    path: PathBuf,
    cause: String,
}

impl FileError {
    pub(super) fn new(option: &'static str, path: &Path, cause: impl fmt::Display) -> Self {
        Self {
            option,
            path: path.to_owned(),
            cause: cause.to_string(),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            option,
            path,
            cause,
        } = self;
        write!(f, "{option}: {:?}: {cause}", path.display())
    }
}

impl std::error::Error for FileError {}

/// A certificate with its chain and key.
pub(super) struct Credentials {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Reads a certificate and its key, which these options name.
pub(super) fn read_credentials(
    options: [&'static str; 2],
    identity: &Identity,
) -> Result<Credentials, FileError> {
    Ok(Credentials {
        chain: read_chain(options[0], &identity.certificate)?,
        key: read_key(options[1], &identity.key)?,
    })
}

/// Reads CA certificates, at least one, and their dates.
pub(super) fn read_roots(
    option: &'static str,
    path: &Path,
) -> Result<(RootCertStore, Authorities), FileError> {
    let mut roots = RootCertStore::empty();
    let certificates = read_chain(option, path)?;
    let authorities = Authorities::new(option, path, &certificates);
    for (index, certificate) in certificates.into_iter().enumerate() {
        roots.add(certificate).map_err(|_| {
            let cause = format!("cannot parse certificate {}", index + 1);
            FileError::new(option, path, cause)
        })?;
    }
    Ok((roots, authorities))
}

/// Reads certificates, at least one.
pub(super) fn read_chain(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let failed = |cause: String| FileError::new(option, path, cause);
    let pem = file::read(path).map_err(|error| failed(file::describe(path, &error)))?;
    let certificates = CertificateDer::pem_slice_iter(&pem);
    let certificates = certificates.enumerate().map(|(index, certificate)| {
        certificate
            .map_err(|error| failed(format!("certificate {}: {}", index + 1, describe(&error))))
    });
    let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        let is_of_ca = ["--ca-file", "--tls-client-ca"].contains(&option);
        let cause = if is_der(&pem) {
            format!("expected certificates in PEM, {}", found_der("x509", path))
        } else if !has(&pem, "PRIVATE KEY") {
            "expected certificates in PEM".to_owned()
        } else if is_of_ca {
            "expected a CA certificate in PEM, found a private key: use the certificate of the CA"
                .to_owned()
        } else {
            format!("expected certificates in PEM, found a private key: {SWAPPED}")
        };
        return Err(failed(cause));
    }
    Ok(certificates)
}

/// Reads a private key.
fn read_key(option: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let failed = |cause: String| FileError::new(option, path, cause);
    let pem = file::read(path).map_err(|error| failed(file::describe(path, &error)))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        failed(match error {
            pem::Error::NoItemsFound if has(&pem, "BEGIN CERTIFICATE") => {
                format!("expected a private key in PEM, found a certificate: {SWAPPED}")
            }
            // OpenSSL's own format of an encrypted key has a header that is not PEM.
            _ if has(&pem, "ENCRYPTED") => format!(
                "expected an unencrypted private key in PEM, found an encrypted one: decrypt it \
                 with `openssl pkey -in {} -out own.key`",
                path.display()
            ),
            _ if is_der(&pem) => {
                format!("expected a private key in PEM, {}", found_der("pkey", path))
            }
            pem::Error::NoItemsFound => "expected an unencrypted private key in PEM".into(),
            error => describe(&error),
        })
    })
}

/// Returns whether a file begins with the header of a DER sequence, as certificates and keys in DER
/// do: a length of up to 127 bytes in one byte, or the number of bytes of the length.
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, len @ ..=0x7f, content @ ..] => content.len() == usize::from(*len),
        [0x30, 0x81..=0x83, ..] => true,
        _ => false,
    }
}

/// Returns the advice on a file in DER. `command` of OpenSSL converts it.
fn found_der(command: &str, path: &Path) -> String {
    let path = path.display();
    format!("found DER: convert it with `openssl {command} -inform der -in {path} -out {path}.pem`")
}

const SWAPPED: &str = "are the files of certificate and key swapped?";

/// Returns whether a file contains this text.
fn has(pem: &[u8], text: &str) -> bool {
    pem.windows(text.len()).any(|part| part == text.as_bytes())
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "the END line is missing".to_owned(),
        pem::Error::Base64Decode(_) => "invalid base64".to_owned(),
        error => error.to_string(),
    }
}
