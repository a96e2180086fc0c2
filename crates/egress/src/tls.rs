use std::sync::{Arc, LazyLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Makes ring the cryptography of every TLS connection of this process. Safe to call more than once; a provider
/// that is already installed stays.
pub fn install_crypto() {
    if CryptoProvider::get_default().is_none() {
        // Fails only when another thread was faster.
        let _ = ring::default_provider().install_default();
    }
}

/// The system's trust store, read at the first use and shared; `None` where there is none.
static VERIFIER: LazyLock<Option<Arc<dyn ServerCertVerifier>>> =
    LazyLock::new(|| match Verifier::new(Arc::new(ring::default_provider())) {
        Ok(verifier) => Some(Arc::new(verifier)),
        Err(_) => {
            tracing::warn!(
                "no certificate authorities are installed on this system: https URLs cannot be reached"
            );
            None
        }
    });

/// A client configuration on the system's trust store. Without one every handshake fails, while plain HTTP
/// goes on working. Blocks on the file system at the first call.
pub(crate) fn client_config(protocols: &[&[u8]]) -> ClientConfig {
    install_crypto();
    let builder = ClientConfig::builder();
    let mut config = match VERIFIER.clone() {
        Some(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        None => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}
