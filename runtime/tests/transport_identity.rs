//! TLS peers that are not Marill: what our end says when the other breaks the rules that ours cannot break.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use marill_runtime::error::{Role, RunError, TransportFault};
use marill_runtime::transport::{
    CERTIFICATE_FILE, Ends, GREETING, Identity, KEY_FILE, Listener, PeerCertificate, Protection, Timeouts,
    TlsIdentity, connect,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

const CLIENT: Ends = Ends { me: Role::Client, peer: Role::Server };
const SERVER: Ends = Ends { me: Role::Server, peer: Role::Client };

fn timeouts() -> Timeouts {
    let second = Duration::from_secs(1);
    Timeouts { accept: Some(20 * second), connect: 5 * second, greet: 5 * second, idle: 5 * second }
}

fn homes() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["client", "server", "stranger"] {
        Identity::create_in(&directory.path().join(name)).unwrap();
    }
    directory
}

fn protection(homes: &Path, own: &str, trusted: &str) -> Protection {
    Protection::Tls(Box::new(TlsIdentity {
        own: Identity::load(&homes.join(own)).unwrap(),
        trusted: PeerCertificate::load(&homes.join(trusted).join(CERTIFICATE_FILE)).unwrap(),
    }))
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct TrustsAnybody;

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A foreign TLS server that shows the certificate of `shown` and signs with the key of `signing`, and what our
/// client says of it.
fn call_server_with(homes: &Path, shown: &str, signing: &str) -> Result<(), RunError> {
    let certificate = CertificateDer::from_pem_file(homes.join(shown).join(CERTIFICATE_FILE)).unwrap();
    let key = PrivateKeyDer::from_pem_file(homes.join(signing).join(KEY_FILE)).unwrap();
    let provider = Arc::new(ring::default_provider());
    let key = provider.key_provider.load_private_key(key).unwrap();
    let resolver = Shows(Arc::new(CertifiedKey::new(vec![certificate], key)));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
            let _ = tls.write_all(&GREETING).and_then(|()| tls.read_exact(&mut [0; GREETING.len()]));
        });
        connect(&address, CLIENT, &protection(homes, "client", "server"), &timeouts()).map(|_| ())
    })
}

/// A foreign TLS client without a certificate, and what our server says of it.
fn accept_bare_client(homes: &Path, version: &'static SupportedProtocolVersion) -> RunError {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAnybody))
        .with_no_client_auth();
    let listener = Listener::bind("127.0.0.1:0", SERVER).unwrap();
    let address = listener.address();
    thread::scope(|scope| {
        scope.spawn(move || {
            let name = ServerName::try_from("marill").unwrap();
            let connection = ClientConnection::new(Arc::new(config), name).unwrap();
            let mut tls = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
            let _ = tls.write_all(&GREETING).and_then(|()| tls.read_exact(&mut [0; GREETING.len()]));
        });
        listener.accept(SERVER, &protection(homes, "server", "client"), &timeouts()).map(|_| ()).unwrap_err()
    })
}

#[test]
fn a_copied_certificate_without_its_key_is_refused() {
    let homes = homes();
    call_server_with(homes.path(), "server", "server").unwrap();
    match call_server_with(homes.path(), "server", "stranger").unwrap_err() {
        RunError::Transport { peer: Role::Server, source: TransportFault::Tls { text }, .. } => {
            assert!(text.contains("BadSignature"), "{text}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_client_without_certificate_is_refused() {
    let homes = homes();
    let expected = Identity::load(&homes.path().join("client")).unwrap().fingerprint();
    assert_eq!(
        accept_bare_client(homes.path(), &TLS13).to_string(),
        format!("the certificate of the client does not fit: expected {expected}, found no certificate")
    );
}

#[test]
fn older_tls_is_refused() {
    let error = accept_bare_client(homes().path(), &TLS12);
    assert!(
        matches!(&error, RunError::PeerIncompatible { what: "tls", ours, .. } if ours == "tls 1.3"),
        "{error}"
    );
}
