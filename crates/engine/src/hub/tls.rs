//! The TLS configuration.
//!
//! The default build must need no C compiler and run on every CPU that the standard library supports, which leaves
//! few cryptography providers for rustls:
//!
//! | provider | why (not) |
//! |---|---|
//! | ring, aws-lc-rs, OpenSSL, mbedTLS, SymCrypt | need a C toolchain or a system library with headers |
//! | rustls-graviola | Rust and generated assembly, fast and partly verified, but only for x86-64 with AVX2 and ADX, and AArch64 with AES and SHA-2 instructions |
//! | rustls-pure | TLS 1.3 and elliptic curves only: most of the web's certificate chains contain an RSA signature, which it refuses |
//! | rustls-rustcrypto | pure Rust, TLS 1.2 and 1.3, RSA, ECDSA and Ed25519; uses AES-NI, CLMUL and SHA extensions where present |
//!
//! So it is the last. It calls itself an alpha, and nothing about it is audited: it is pinned to the version that was
//! read, and catalogue models are checked against sums compiled into the program, whoever sent them. The timing leak
//! known of the `rsa` crate (RUSTSEC-2023-0071) concerns private keys; a client only verifies signatures.

use std::sync::Arc;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Returns a configuration that verifies certificates against the system's trusted authorities, or Mozilla's where
/// the system has none.
///
/// The system's come first because organisations add their own authorities there; `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` replace them.
pub(super) fn config() -> TlsConfig {
    let system = rustls_native_certs::load_native_certs().certs;
    let roots = if system.is_empty() {
        RootCerts::WebPki
    } else {
        system.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).into()
    };
    TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls_rustcrypto::provider()))
        .build()
}
