//! TLS 1.3 under a channel: mutual, and each side trusts exactly one certificate.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, PeerIncompatible, ServerConfig, ServerConnection, SignatureScheme,
};

use super::channel::fault_of;
use super::tcp::{GREETING, failed, hang_up_of, incompatible, remaining, set_timeouts, write_now};
use super::wire::{Incoming, Outgoing, Wire};
use super::{Ends, Identity, PeerCertificate};
use crate::error::{Action, RunError, TransportFault};

/// Plaintext sealed, and ciphertext read, at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// Who this party is, and whom alone it talks to.
pub struct TlsIdentity {
    /// This party's certificate and key.
    pub own: Identity,
    /// The peer's certificate.
    pub trusted: PeerCertificate,
}

/// Who called whom, which in TLS are called client and server whatever their roles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Caller,
    Called,
}

/// Shakes hands over `stream` before `deadline`, which is `patience` after the beginning.
pub(super) fn open(
    stream: TcpStream,
    ends: Ends,
    identity: &TlsIdentity,
    side: Side,
    deadline: Instant,
    patience: Duration,
) -> Result<Wire, RunError> {
    let mut connection = start(identity, side)
        .map_err(|error| failed(ends, Action::Greet, TransportFault::Tls { text: error.to_string() }))?;
    connection.set_buffer_limit(None);
    let mut sealed = Sealed { bytes: vec![0; CHUNK_BYTES], from: 0, to: 0 };
    if let Err(error) = shake_hands(&stream, &mut connection, &mut sealed, deadline) {
        // The alert that tells the peer why.
        while connection.wants_write() && connection.write_tls(&mut &stream).is_ok() {}
        if sealed.begins_with_greeting() {
            return Err(incompatible(ends, "protection of the connection", "tls", "plain tcp".to_owned()));
        }
        return Err(sort(error, ends, identity, patience));
    }
    let wire = || {
        let connection = Arc::new(Mutex::new(connection));
        Ok(Wire {
            hang_up: hang_up_of(&stream)?,
            incoming: Box::new(TlsIncoming {
                stream: stream.try_clone()?,
                connection: Arc::clone(&connection),
                sealed,
            }),
            outgoing: Box::new(TlsOutgoing { stream, connection, sealed: Vec::new(), written_bytes: 0 }),
        })
    };
    wire().map_err(|error| failed(ends, Action::Greet, fault_of(error, patience)))
}

/// The run error for what a TLS stream said before the channel was open.
pub(super) fn sort(error: io::Error, ends: Ends, identity: &TlsIdentity, patience: Duration) -> RunError {
    let trusted = identity.trusted.fingerprint();
    let fault = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) => {
            match other.downcast_ref::<OtherCertificate>() {
                Some(found) => return incompatible(ends, "certificate", &trusted, found.0.clone()),
                None => TransportFault::Tls { text: error.to_string() },
            }
        }
        Some(Error::NoCertificatesPresented) => {
            return incompatible(ends, "certificate", &trusted, "no certificate".to_owned());
        }
        Some(Error::PeerIncompatible(why)) => return incompatible(ends, "tls", "tls 1.3", lack(why)),
        Some(Error::AlertReceived(alert)) => {
            TransportFault::Refused { alert: format!("{alert:?}"), shown: identity.own.fingerprint() }
        }
        _ => fault_of(error, patience),
    };
    failed(ends, Action::Greet, fault)
}

fn lack(why: &PeerIncompatible) -> String {
    format!("{why:?}")
}

fn start(identity: &TlsIdentity, side: Side) -> Result<Connection, Error> {
    let provider = Arc::new(ring::default_provider());
    let pinned = Arc::new(Pinned { trusted: identity.trusted.clone(), provider: Arc::clone(&provider) });
    let chain = vec![identity.own.certificate().clone()];
    let key = identity.own.key();
    match side {
        Side::Caller => {
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(pinned)
                .with_client_auth_cert(chain, key)?;
            config.resumption = rustls::client::Resumption::disabled();
            config.enable_sni = false;
            let name = ServerName::try_from("marill").map_err(|error| Error::General(error.to_string()))?;
            Ok(Connection::Client(ClientConnection::new(Arc::new(config), name)?))
        }
        Side::Called => {
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])?
                .with_client_cert_verifier(pinned)
                .with_single_cert(chain, key)?;
            config.send_tls13_tickets = 0;
            Ok(Connection::Server(ServerConnection::new(Arc::new(config))?))
        }
    }
}

fn shake_hands(
    mut stream: &TcpStream,
    connection: &mut Connection,
    sealed: &mut Sealed,
    deadline: Instant,
) -> io::Result<()> {
    loop {
        while connection.wants_write() {
            connection.write_tls(&mut stream)?;
        }
        if !connection.is_handshaking() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        set_timeouts(stream, remaining(deadline))?;
        sealed.refill(stream)?;
        while connection.is_handshaking() && sealed.feed(connection)? {}
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Ciphertext that was read from the socket and not yet given to the connection.
struct Sealed {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Sealed {
    /// Waits for more ciphertext. Called only when all was fed.
    fn refill(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        (self.from, self.to) = (0, 0);
        loop {
            match stream.read(&mut self.bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.to = read;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives some ciphertext to the connection; false if there was none.
    fn feed(&mut self, connection: &mut Connection) -> io::Result<bool> {
        if self.from == self.to {
            return Ok(false);
        }
        self.from += connection.read_tls(&mut &self.bytes[self.from..self.to])?;
        connection.process_new_packets().map_err(invalid)?;
        Ok(true)
    }

    fn begins_with_greeting(&self) -> bool {
        self.bytes[..self.to].starts_with(&GREETING[..4])
    }
}

struct TlsOutgoing {
    stream: TcpStream,
    connection: Arc<Mutex<Connection>>,
    sealed: Vec<u8>,
    written_bytes: usize,
}

impl TlsOutgoing {
    /// Seals the beginning of `bytes` in place of what was sealed before, and says how much.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        self.sealed.clear();
        self.written_bytes = 0;
        let taken = connection.writer().write(&bytes[..bytes.len().min(CHUNK_BYTES)])?;
        while connection.wants_write() {
            connection.write_tls(&mut self.sealed)?;
        }
        Ok(taken)
    }
}

impl Outgoing for TlsOutgoing {
    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            self.written_bytes += write_now(&self.stream, &self.sealed[self.written_bytes..])?;
            if self.has_backlog() || taken == bytes.len() {
                return Ok(taken);
            }
            taken += self.seal(&bytes[taken..])?;
        }
    }

    fn has_backlog(&self) -> bool {
        self.written_bytes < self.sealed.len()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut taken = 0;
        loop {
            self.stream.write_all(&self.sealed[self.written_bytes..])?;
            self.written_bytes = self.sealed.len();
            if taken == bytes.len() {
                return Ok(());
            }
            taken += self.seal(&bytes[taken..])?;
        }
    }
}

struct TlsIncoming {
    stream: TcpStream,
    connection: Arc<Mutex<Connection>>,
    sealed: Sealed,
}

impl Incoming for TlsIncoming {
    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        loop {
            let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                while filled < buffer.len() {
                    match connection.reader().read(&mut buffer[filled..]) {
                        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                        Ok(read) => filled += read,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                if filled == buffer.len() {
                    return Ok(());
                }
                if !self.sealed.feed(&mut connection)? {
                    break;
                }
            }
            drop(connection);
            self.sealed.refill(&self.stream)?;
        }
    }
}

/// Another certificate than the pinned one, by its fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is {0}")]
struct OtherCertificate(String);

/// Trusts one certificate, byte for byte. The handshake signature still proves that the peer has its key.
#[derive(Debug)]
struct Pinned {
    trusted: PeerCertificate,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn compare(&self, found: &CertificateDer<'_>) -> Result<(), Error> {
        if self.trusted.is(found) {
            return Ok(());
        }
        let other = OtherCertificate(PeerCertificate::from_der(found).fingerprint());
        Err(CertificateError::Other(OtherError(Arc::new(other))).into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.compare(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Pinned::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.compare(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Pinned::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
