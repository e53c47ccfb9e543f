use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use firecrest::hub::HubError;

use crate::server::{File, Server, reply};
use crate::{child, model, options, resolve, result_of};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hub").join(name)
}

/// A server for `localhost` with a certificate that only `authority.pem` vouches for.
fn server(bytes: &[u8]) -> Server {
    let certificates =
        CertificateDer::pem_file_iter(data("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(data("server.key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls_rustcrypto::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let (config, bytes) = (Arc::new(config), bytes.to_vec());
    Server::start_on(
        move |stream| {
            let connection = ServerConnection::new(config.clone()).ok()?;
            Some(Box::new(StreamOwned::new(connection, stream)))
        },
        move |_, request, stream| match request.target.as_str() {
            "/downgrade.gguf" => reply(stream, "302 Found", &[("Location", "http://localhost/m.gguf")], b""),
            _ => File { bytes: &bytes, etag: None, ranges: true, cut: None }.serve(request, stream),
        },
    )
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (server, options) = (server(&model(1000, 1)), options("untrusted"));
    let error = resolve(&format!("https://localhost:{}/m.gguf", server.port), &options).unwrap_err();
    let expected = format!("no secure connection to localhost:{}: invalid peer certificate", server.port);
    assert!(matches!(error, HubError::Tls { .. }) && error.to_string().starts_with(&expected), "{error}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_server_without_tls_is_refused() {
    let refuse = |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 1000]);
        None
    };
    let server = Server::start_on(refuse, |_, _, _| {});
    let error =
        resolve(&format!("https://localhost:{}/m.gguf", server.port), &options("no-tls")).unwrap_err();
    assert!(matches!(error, HubError::Tls { .. }), "{error:?}");
}

// Trusted authorities are chosen by the environment, so that of a process of its own.
#[test]
fn a_trusted_authority_is_accepted_for_its_host_alone() {
    let bytes = model(200_000, 2);
    let (server, options) = (server(&bytes), options("trusted"));
    let run = |host: &str, file: &str, authority: PathBuf| {
        let url = format!("https://{host}:{}/{file}", server.port);
        let mut child = child(&url, &options);
        let proxies = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        result_of(
            proxies.iter().fold(child.env("SSL_CERT_FILE", authority), |child, name| child.env_remove(name)),
        )
    };
    let path = run("localhost", "m.gguf", data("authority.pem"));
    assert!(fs::read(&path).is_ok_and(|found| found == bytes), "{path}");
    // The certificate is for localhost, not for its address.
    let error = run("127.0.0.1", "n.gguf", data("authority.pem"));
    assert!(error.contains("invalid peer certificate: certificate not valid for name"), "{error}");
    let error = run("localhost", "n.gguf", data("server.key.pem"));
    assert!(error.contains("invalid peer certificate: UnknownIssuer"), "{error}");
    let error = run("localhost", "downgrade.gguf", data("authority.pem"));
    assert!(error.ends_with("the server redirects to an insecure http: address"), "{error}");
}
