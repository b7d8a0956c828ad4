//! Invariant: whoever asks costs one of a few connections, 16 KiB and ten seconds at most.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// Most bytes of a request's head.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Connections at once; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 16;
/// Longest time that a request and its answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause when the system has no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the page; `None` when there is nothing any more to tell of.
type Render = dyn Fn() -> Option<String> + Send + Sync;
type Answer = Response<Full<Bytes>>;

/// A running HTTP server of `/metrics`, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    address: SocketAddr,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl MetricsServer {
    /// Takes the address and answers on it; port 0 takes any free one.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`](crate::ErrorKind::InUse) when another program has the port, and those of the system.
    pub(crate) fn start(
        address: SocketAddr,
        runtime: &Handle,
        render: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_with(address, runtime, TIMEOUT, Arc::new(render))
    }

    fn start_with(
        address: SocketAddr,
        runtime: &Handle,
        timeout: Duration,
        render: Arc<Render>,
    ) -> Result<Self> {
        let failed = |e| {
            Error::io(
                format!(
                    "cannot serve metrics on {address}; choose another address or port, or end the program that has it"
                ),
                e,
            )
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let (stop, stopped) = watch::channel(());
        let task = runtime.spawn(async move {
            let mut end = stopped.clone();
            tokio::select! {
                () = accept(listener, render, timeout, stopped) => {}
                _ = end.changed() => {}
            }
        });
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// The address on which it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; afterwards the port is free.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // It can only have failed by a panic, and there is nothing more to end then.
        let _ = self.task.await;
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    render: Arc<Render>,
    timeout: Duration,
    stopped: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "metrics: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let render = render.clone();
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                _ = tokio::time::timeout(timeout, connection(stream, peer, render)) => {}
                _ = stopped.changed() => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, render: Arc<Render>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let render = render.clone();
        async move { Ok::<_, Infallible>(answer(&request, render).await) }
    });
    let result = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST_BYTES)
        // The whole connection has a time limit, so this one is not needed.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "metrics: a connection failed");
    }
}

async fn answer(request: &Request<Incoming>, render: Arc<Render>) -> Answer {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if request.method() != Method::GET {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        let headers = answer.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
        return answer;
    }
    // It counts descriptors and takes locks: not on the threads that serve sockets.
    match tokio::task::spawn_blocking(move || render()).await {
        Ok(Some(page)) => {
            let mut answer = Response::new(Full::new(page.into()));
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, format);
            answer
        }
        Ok(None) | Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the session has ended\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, format);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A server that closes on us with bytes unread resets the connection; what it said came before.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    fn server() -> MetricsServer {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let page = || Some("up 1\n".to_owned());
        MetricsServer::start(address, &Handle::current(), page).unwrap()
    }

    #[tokio::test]
    async fn only_get_of_metrics_gives_the_page() {
        let server = server();
        let at = server.address();
        let page = ask(at, b"GET /metrics?x=1 HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(page.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(page.ends_with("\r\n\r\nup 1\n"), "{page}");
        for path in ["/", "/metrics/", "/Metrics", "/../metrics"] {
            let request = format!("GET {path} HTTP/1.0\r\n\r\n");
            let answer = ask(at, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.0 404 "), "{path}: {answer}");
        }
        for method in ["POST", "HEAD", "PUT", "BREW"] {
            let request = format!("{method} /metrics HTTP/1.0\r\n\r\n");
            let answer = ask(at, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.0 405 "), "{method}: {answer}");
            assert!(answer.contains("allow: GET\r\n"), "{method}: {answer}");
        }
        server.stop().await;
        assert!(TcpStream::connect(at).await.is_err(), "the port is free");
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let server = server();
        let mut request = b"GET /metrics HTTP/1.1\r\nx: ".to_vec();
        request.resize(MAX_REQUEST_BYTES * 4, b'a');
        let answer = ask(server.address(), &request).await;
        assert!(!answer.contains(" 200 "), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn those_who_say_nothing_are_sent_away_and_others_get_their_turn() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let page: Arc<Render> = Arc::new(|| Some("up 1\n".to_owned()));
        let patience = Duration::from_millis(200);
        let server =
            MetricsServer::start_with(address, &Handle::current(), patience, page).unwrap();
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(server.address()).await.unwrap());
        }
        let page = ask(server.address(), b"GET /metrics HTTP/1.0\r\n\r\n").await;
        assert!(page.ends_with("up 1\n"), "{page}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let server = server();
        let error = MetricsServer::start(server.address(), &Handle::current(), || None);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InUse);
        assert!(error.to_string().contains(&server.address().to_string()));
        server.stop().await;
    }
}
