//! Invariant: no answer is read beyond its caller's limit, and no request outlives its time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;

use crate::{Error, ErrorKind, Result};

/// The HTTP client for .torrent files and trackers. Clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
}

/// What a web server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl HttpClient {
    /// A client that trusts the certificates that this system trusts.
    ///
    /// It brings its own cryptography: nothing is registered for the whole process.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the system has no means for TLS.
    pub fn new() -> Result<Self> {
        let unavailable = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::with_source(
                ErrorKind::Unavailable,
                "cannot set up the HTTP client; check the system's TLS libraries",
                e,
            )
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
        };
        let tls = match builder().and_then(|b| b.with_platform_verifier()) {
            Ok(config) => config.with_no_client_auth(),
            // A minimal system may have no certificates at all. Plain http must work there.
            Err(e) => {
                tracing::warn!("https will fail, install the ca-certificates package: {e}");
                builder()
                    .map_err(|e| unavailable(e.into()))?
                    .with_root_certificates(RootCertStore::empty())
                    .with_no_client_auth()
            }
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("vmtorrent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::limited(5))
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| unavailable(e.into()))?;
        Ok(Self { client })
    }

    /// Gets a URL: the answer's body of at most `limit` bytes, within `timeout` in all.
    ///
    /// The errors tell the cause and the remedy but not the URL, which may hold a secret.
    pub(crate) async fn get(&self, url: Url, limit: usize, timeout: Duration) -> Result<Answer> {
        let too_large = || {
            Error::new(
                ErrorKind::Network,
                format!("the answer is larger than {limit} bytes; check the URL"),
            )
        };
        let request = self.client.get(url).timeout(timeout);
        let mut response = request.send().await.map_err(failure)?;
        if response.content_length().is_some_and(|n| n > limit as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: response.status(),
            body: body.freeze(),
        })
    }
}

fn failure(e: reqwest::Error) -> Error {
    let e = e.without_url();
    if e.is_timeout() {
        Error::with_source(
            ErrorKind::TimedOut,
            "the server did not answer in time; try again later",
            e,
        )
    } else {
        Error::with_source(
            ErrorKind::Network,
            "the server could not be reached or broke off; check the URL and the network",
            e,
        )
    }
}
