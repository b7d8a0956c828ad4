//! Invariant: a scripted web server says exactly what its script says, and nothing outlives its [`ScriptedServer`].

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When the request was here.
    pub at: Instant,
    /// How many came before it, over all connections.
    pub number: usize,
    /// Its target.
    pub target: String,
    /// The part of the file, if it named one.
    pub range: Option<Range<u64>>,
}

type Script = dyn Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// A web server for what no honest one does.
pub struct ScriptedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl ScriptedServer {
    /// Starts one; the script writes the whole answer, and a connection ends with an error.
    ///
    /// # Panics
    /// If it can't listen.
    pub fn start(
        script: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            state: Mutex::default(),
        });
        let serving = shared.clone();
        let listener = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let connection = serving.clone();
                let mut state = serving.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return;
                }
                state.streams.extend(stream.try_clone().ok());
                let thread = std::thread::spawn(move || {
                    // Clients come and go as they like.
                    let _ = connection.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
                state.threads.push(thread);
            }
        });
        Self {
            address,
            shared,
            listener: Some(listener),
        }
    }

    /// The URL of a path there, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream.try_clone()?;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut range = None;
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header)? == 0 {
                    return Ok(());
                }
                let header = header.trim().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                if let Some(bytes) = header.strip_prefix("range: bytes=") {
                    range = bytes.split_once('-').and_then(|(first, last)| {
                        Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
                    });
                }
            }
            let asked = {
                let mut state = self.state();
                let asked = Asked {
                    at: Instant::now(),
                    number: state.asked.len(),
                    target,
                    range,
                };
                state.asked.push(asked.clone());
                asked
            };
            (self.script)(&asked, &mut stream)?;
        }
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        let (streams, threads) = {
            let mut state = self.shared.state();
            state.closed = true;
            (
                std::mem::take(&mut state.streams),
                std::mem::take(&mut state.threads),
            )
        };
        for stream in streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // It sees that it is over with the next connection.
        let _ = TcpStream::connect(self.address);
        for thread in self.listener.take().into_iter().chain(threads) {
            let _ = thread.join();
        }
    }
}

/// The part of a file, as a web server should send it.
///
/// # Errors
/// When the client has gone.
pub fn part(stream: &mut TcpStream, file: &[u8], range: Range<u64>) -> io::Result<()> {
    let body = &file[range.start as usize..range.end as usize];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\nContent-Length: {}\r\n\r\n",
        range.start,
        range.end - 1,
        file.len(),
        body.len()
    )?;
    stream.write_all(body)
}

/// An answer without a body, with these headers, each with its line end.
///
/// # Errors
/// When the client has gone.
pub fn bare(stream: &mut TcpStream, status: &str, headers: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: 0\r\n{headers}\r\n"
    )
}
