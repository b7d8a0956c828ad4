//! Invariant: no answer is read beyond its caller's limit, and no request outlives its time.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
#[cfg(feature = "tls")]
use rustls::RootCertStore;
#[cfg(feature = "tls")]
use rustls::client::ClientConfig;
#[cfg(feature = "tls")]
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;

use crate::{Error, ErrorKind, Result};

/// The HTTP client for .torrent files, trackers and web seeds. Clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    /// Uses no proxy of the environment.
    direct: reqwest::Client,
    /// Speaks HTTP/2 too, and never goes from https to http.
    web_seeds: reqwest::Client,
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
        #[cfg(feature = "tls")]
        let tls = tls()?;
        let common = || {
            let builder = reqwest::Client::builder();
            #[cfg(feature = "tls")]
            let builder = builder.tls_backend_preconfigured(tls.clone());
            builder
                .user_agent(concat!("vmtorrent/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(10))
                .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
                .pool_idle_timeout(Duration::from_secs(30))
        };
        let client = common().build().map_err(|e| unavailable(e.into()))?;
        let direct = common().no_proxy().build();
        let direct = direct.map_err(|e| unavailable(e.into()))?;
        let web_seeds = common();
        #[cfg(feature = "tls")]
        let web_seeds = {
            let mut tls = tls.clone();
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            web_seeds.tls_backend_preconfigured(tls)
        };
        let web_seeds = web_seeds
            .redirect(reqwest::redirect::Policy::custom(follow))
            .referer(false)
            .pool_idle_timeout(WEB_SEED_IDLE)
            .build();
        let web_seeds = web_seeds.map_err(|e| unavailable(e.into()))?;
        Ok(Self {
            client,
            direct,
            web_seeds,
        })
    }

    /// The client for web seeds. What it is asked for, and how much of an answer is read, is for its user to bound.
    pub(crate) fn web_seeds(&self) -> &reqwest::Client {
        &self.web_seeds
    }

    /// Gets a URL: the answer's body of at most `limit` bytes, within `timeout` in all.
    ///
    /// The errors tell the cause and the remedy but not the URL, which may hold a secret.
    pub(crate) async fn get(&self, url: Url, limit: usize, timeout: Duration) -> Result<Answer> {
        get(&self.client, url, limit, timeout).await
    }

    /// The same without the proxies of the environment: a tracker tells others the address that asks.
    pub(crate) async fn get_directly(
        &self,
        url: Url,
        limit: usize,
        timeout: Duration,
    ) -> Result<Answer> {
        get(&self.direct, url, limit, timeout).await
    }
}

const MAX_REDIRECTS: usize = 5;
/// How long a connection to a web seed is kept that nothing is asked over. Servers commonly keep one for about so long.
const WEB_SEED_IDLE: Duration = Duration::from_secs(60);

/// Whether a redirect of a web seed is followed.
fn follow(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let before = attempt.previous();
    if before.len() > MAX_REDIRECTS {
        return attempt.error("it redirects too often");
    }
    if before.last().is_some_and(|b| b.scheme() == "https") && attempt.url().scheme() != "https" {
        return attempt.error("it redirects from https to http");
    }
    attempt.follow()
}

fn unavailable(e: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::with_source(
        ErrorKind::Unavailable,
        "cannot set up the HTTP client; check the system's TLS libraries",
        e,
    )
}

#[cfg(feature = "tls")]
fn tls() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()
    };
    match builder().and_then(|b| b.with_platform_verifier()) {
        Ok(config) => Ok(config.with_no_client_auth()),
        // A minimal system may have no certificates at all. Plain http must work there.
        Err(e) => {
            tracing::warn!("https will fail, install the ca-certificates package: {e}");
            let config = builder().map_err(|e| unavailable(e.into()))?;
            let config = config.with_root_certificates(RootCertStore::empty());
            Ok(config.with_no_client_auth())
        }
    }
}

async fn get(
    client: &reqwest::Client,
    url: Url,
    limit: usize,
    timeout: Duration,
) -> Result<Answer> {
    let too_large = || {
        Error::new(
            ErrorKind::Network,
            format!("the answer is larger than {limit} bytes; check the URL"),
        )
    };
    if cfg!(not(feature = "tls")) && url.scheme() == "https" {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "this build has no TLS: use an http URL or a file, or build with the feature `tls`",
        ));
    }
    let request = client.get(url).timeout(timeout);
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    #[cfg(not(feature = "tls"))]
    #[tokio::test]
    async fn without_tls_https_is_refused_with_the_remedy() {
        let url = Url::parse("https://127.0.0.1:9/").unwrap();
        let client = HttpClient::new().unwrap();
        let refused = client.get(url, 100, Duration::from_secs(5)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("the feature `tls`"));
    }

    const NAME: &str =
        "http::tests::what_a_tracker_is_asked_does_not_go_through_a_proxy_of_the_environment";
    const CHILD: &str = "VMTORRENT_TEST_BEHIND_A_PROXY";

    #[test]
    fn what_a_tracker_is_asked_does_not_go_through_a_proxy_of_the_environment() {
        if std::env::var_os(CHILD).is_none() {
            // A process may not change its own environment while others read it.
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", NAME])
                .envs([(CHILD, "1"), ("http_proxy", "http://127.0.0.1:9")])
                .env_remove("no_proxy")
                .env_remove("NO_PROXY")
                .output()
                .unwrap();
            assert!(child.status.success(), "{child:?}");
            return;
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", server.local_addr().unwrap())).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde";
            stream.write_all(answer).unwrap();
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = HttpClient::new().unwrap();
            let patience = Duration::from_secs(10);
            let proxied = client.get(url.clone(), 100, patience).await;
            assert_eq!(proxied.unwrap_err().kind(), ErrorKind::Network);
            let answer = client.get_directly(url, 100, patience).await.unwrap();
            assert_eq!(answer.body[..], *b"de");
        });
        answering.join().unwrap();
    }
}
