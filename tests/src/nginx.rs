//! Invariant: an nginx of a test serves only its directory, on loopback, and ends with its [`Nginx`].

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::require;

/// A web server of Debian's, with a configuration of its own.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    scheme: &'static str,
    log: PathBuf,
}

/// One request, as the server noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Of the answer.
    pub status: u16,
    /// Bytes of its body.
    pub bytes: u64,
    /// Which connection it came over, and the how many-th request on that it was.
    pub connection: u64,
    /// See `connection`.
    pub number: u64,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// Without the host.
    pub target: String,
    /// What it asked for, `bytes=FIRST-LAST`.
    pub range: String,
}

/// The certificate that a server shows, and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Of the authority that a client has to trust, PEM.
    pub authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Makes an authority, and lets it sign a certificate for 127.0.0.1. `None`, and said so, without openssl.
    ///
    /// # Panics
    /// If that fails.
    pub fn new(directory: &Path) -> Option<Self> {
        let found = Command::new("openssl").arg("version").output();
        if !require(found.is_ok(), "openssl") {
            return None;
        }
        let path = |name: &str| directory.join(name);
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(arguments)
                .current_dir(directory)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {arguments:?}: {told}");
        };
        let curve = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let mut authority = vec!["req", "-x509", "-days", "2", "-subj", "/CN=test authority"];
        authority.extend(curve);
        authority.extend(["-keyout", "ca.key", "-out", "ca.pem"]);
        openssl(&authority);
        let mut request = vec!["req", "-subj", "/CN=test server"];
        request.extend(curve);
        request.extend(["-keyout", "server.key", "-out", "server.csr"]);
        openssl(&request);
        let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
        std::fs::write(path("server.ext"), extensions).unwrap();
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "server.ext",
            "-out",
            "server.pem",
        ]);
        Some(Self {
            authority: path("ca.pem"),
            certificate: path("server.pem"),
            key: path("server.key"),
        })
    }
}

impl Nginx {
    /// Starts it on `directory`; `server` is added to its server block. `None`, and said so, where there is none.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(scratch: &Path, directory: &Path, server: &str) -> Option<Self> {
        Self::run(scratch, directory, server, None)
    }

    /// The same with https and HTTP/2.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_tls(
        scratch: &Path,
        directory: &Path,
        server: &str,
        certificate: &Certificate,
    ) -> Option<Self> {
        Self::run(scratch, directory, server, Some(certificate))
    }

    fn run(
        scratch: &Path,
        directory: &Path,
        server: &str,
        certificate: Option<&Certificate>,
    ) -> Option<Self> {
        let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"];
        let nginx = nginx.into_iter().find(|p| Path::new(p).is_file());
        if !require(nginx.is_some(), "nginx") {
            return None;
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let home = scratch.join(format!("nginx-{}", address.port()));
        std::fs::create_dir_all(&home).unwrap();
        let log = home.join("access.log");
        let mut tls = String::new();
        if let Some(certificate) = certificate {
            let (cert, key) = (certificate.certificate.display(), certificate.key.display());
            write!(tls, "ssl_certificate {cert}; ssl_certificate_key {key};").unwrap();
        }
        let listen = if certificate.is_some() {
            " ssl http2"
        } else {
            ""
        };
        // Workers of root's are somebody else otherwise, who can't look into the test's directory.
        let user = if rustix::process::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let config = format!(
            "daemon off; {user} pid {home}/pid; error_log {home}/error.log; worker_processes 2;
            events {{ worker_connections 256; }}
            http {{
                log_format served '$status $body_bytes_sent $connection $connection_requests $server_protocol $request_uri $http_range';
                access_log {log} served;
                client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
                uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
                keepalive_requests 100000;
                server {{
                    listen {address}{listen}; {tls}
                    root {root};
                    {server}
                }}
            }}\n",
            home = home.display(),
            log = log.display(),
            root = directory.display(),
        );
        let file = home.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let errors = home.join("error.log");
        let child = Command::new(nginx?)
            .arg("-p")
            .arg(&home)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(&errors)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut nginx = Self {
            child,
            address,
            scheme: if certificate.is_some() {
                "https"
            } else {
                "http"
            },
            log,
        };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = nginx.child.try_wait().unwrap();
            let told = std::fs::read_to_string(&errors).unwrap_or_default();
            assert!(ended.is_none(), "nginx ended: {told}");
            assert!(start.elapsed() < Duration::from_secs(30), "nginx: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(nginx)
    }

    /// The URL of a path there, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// What it has answered so far.
    ///
    /// # Panics
    /// If its log is not as it was asked for.
    pub fn served(&self) -> Vec<Served> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be under way.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .lines()
            .map(|line| Self::parse(line).unwrap_or_else(|| panic!("log: {line}")))
            .collect()
    }

    /// The same once it is at least `count` answers: each is noted a moment after it was sent.
    ///
    /// # Panics
    /// If it does not become so many.
    pub fn served_at_least(&self, count: usize) -> Vec<Served> {
        let start = Instant::now();
        loop {
            let served = self.served();
            if served.len() >= count {
                return served;
            }
            let late = start.elapsed() > Duration::from_secs(30);
            assert!(!late, "no {count} answers: {served:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same once nothing was added for a second: what was under way is noted when it ends.
    ///
    /// # Panics
    /// If it does not come to rest.
    pub fn served_in_all(&self) -> Vec<Served> {
        let start = Instant::now();
        let (mut served, mut since) = (self.served(), Instant::now());
        while since.elapsed() < Duration::from_secs(1) {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it answers on and on"
            );
            std::thread::sleep(Duration::from_millis(20));
            let now = self.served();
            if now.len() != served.len() {
                (served, since) = (now, Instant::now());
            }
        }
        served
    }

    fn parse(line: &str) -> Option<Served> {
        let mut words = line.split(' ');
        Some(Served {
            status: words.next()?.parse().ok()?,
            bytes: words.next()?.parse().ok()?,
            connection: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            protocol: words.next()?.to_owned(),
            target: words.next()?.to_owned(),
            range: words.next()?.to_owned(),
        })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only if it may tell them.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
