//! Invariant: of an answer no more is read than was asked for, and each part of it has its time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::Response;
use reqwest::header::{ACCEPT_ENCODING, ETAG, HeaderMap, RANGE};
use tokio::time::timeout;
use url::Url;

use super::answer::{Skip, Wanted};
use super::failure::{Failure, shown};
use super::files::{file_url, segments};
use crate::http::HttpClient;
use crate::image::Image;

/// How long the head of an answer may take, redirects included, and then each part of the body.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// A range may take so long, and a second more for so many bytes: a server that drips can't keep a connection.
const RANGE_PATIENCE: Duration = Duration::from_secs(20);
const SLOWEST: u64 = 8 << 10;
/// How long the end of an answer is waited for whose bytes are all here, so that its connection can be used again.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// How long a redirect is followed without asking again.
const REDIRECT_TERM: Duration = Duration::from_secs(60);
/// Files of which something is remembered, and the longest ETag that is.
const MAX_KNOWN: usize = 4096;
const MAX_ETAG: usize = 256;

/// A web server that holds the files of an image.
pub(in crate::swarm) struct Site {
    image: Arc<Image>,
    base: Url,
    http: HttpClient,
    known: Mutex<Known>,
}

/// What its answers told.
#[derive(Default)]
struct Known {
    files: HashMap<usize, KnownFile>,
    changed: bool,
}

#[derive(Default)]
struct KnownFile {
    etag: Option<String>,
    /// Where it was redirected to, and when.
    redirect: Option<(Url, Instant)>,
}

impl Site {
    pub(in crate::swarm) fn new(image: Arc<Image>, base: Url, http: HttpClient) -> Self {
        Self {
            image,
            base,
            http,
            known: Mutex::default(),
        }
    }

    pub(in crate::swarm) fn url(&self) -> &Url {
        &self.base
    }

    /// Whether a file was replaced (its ETag changed) since it was first seen.
    pub(in crate::swarm) fn has_changed(&self) -> bool {
        self.known.lock().changed
    }

    /// Asks for one byte: whether the server is there, has the file in its length, and sends parts of it. Gives how
    /// long that took.
    pub(super) async fn look(&self) -> Result<Duration, Failure> {
        let mut files = self.image.files().iter();
        let Some(file) = files.position(|f| !f.padding && f.length > 0) else {
            return Err(Failure::useless("the image has no bytes"));
        };
        let start = Instant::now();
        self.get(file, 0..1, &mut |_| {}).await?;
        Ok(start.elapsed())
    }

    /// Fetches a range of the image; what comes goes to `sink`, in order and as it comes.
    pub(super) async fn fetch(
        &self,
        range: Range<u64>,
        sink: &mut (impl FnMut(Bytes) + Send),
    ) -> Result<(), Failure> {
        let bytes = range.end - range.start;
        let patience = RANGE_PATIENCE + Duration::from_secs(bytes / SLOWEST);
        let all = async {
            for segment in segments(&self.image, range) {
                match segment.file {
                    Some(file) => self.get(file, segment.range, sink).await?,
                    None => {
                        let length = segment.range.end - segment.range.start;
                        sink(vec![0; length as usize].into());
                    }
                }
            }
            Ok(())
        };
        timeout(patience, all)
            .await
            .unwrap_or_else(|_| Err(Failure::broken("it sends too slowly")))
    }

    async fn get(
        &self,
        file: usize,
        range: Range<u64>,
        sink: &mut (impl FnMut(Bytes) + Send),
    ) -> Result<(), Failure> {
        let wanted = Wanted {
            range,
            file_length: self.image.files()[file].length,
        };
        if let Some(url) = self.redirect_of(file) {
            let mut any = false;
            let result = self
                .get_at(url, file, &wanted, &mut |data| {
                    any = true;
                    sink(data);
                })
                .await;
            match result {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    // What it leads to may have expired.
                    self.forget_redirect(file);
                    if any {
                        return Err(failure);
                    }
                }
            }
        }
        let url = file_url(&self.base, &self.image, file);
        self.get_at(url, file, &wanted, sink).await
    }

    async fn get_at(
        &self,
        url: Url,
        file: usize,
        wanted: &Wanted,
        sink: &mut (impl FnMut(Bytes) + Send),
    ) -> Result<(), Failure> {
        if cfg!(not(feature = "tls")) && url.scheme() == "https" {
            return Err(Failure::useless("this build has no TLS"));
        }
        let Range { start, end } = wanted.range;
        let request = self
            .http
            .web_seeds()
            .get(url.clone())
            .header(RANGE, format!("bytes={start}-{}", end - 1))
            .header(ACCEPT_ENCODING, "identity");
        let response = timeout(HEAD_PATIENCE, request.send())
            .await
            .map_err(|_| Failure::broken("it does not answer in time"))??;
        let skip = wanted.check(response.status(), response.headers())?;
        self.note(file, response.headers());
        if *response.url() != url {
            self.note_redirect(file, response.url().clone());
        }
        read(response, skip, end - start, sink).await
    }

    /// Notes which version of a file the server has. Another one may hold the same: that is for the hashes to say.
    fn note(&self, file: usize, headers: &HeaderMap) {
        let Some(etag) = headers.get(ETAG).and_then(|v| v.to_str().ok()) else {
            return;
        };
        if etag.len() > MAX_ETAG {
            return;
        }
        let mut known = self.known.lock();
        let before = known.file(file).etag.replace(etag.to_owned());
        if before.is_some_and(|before| before != etag) && !known.changed {
            known.changed = true;
            drop(known);
            tracing::warn!(
                url = shown(&self.base),
                "a file of the web seed was replaced (its ETag changed); from now on the first wrong piece ends its use"
            );
        }
    }

    fn redirect_of(&self, file: usize) -> Option<Url> {
        let mut known = self.known.lock();
        let (url, at) = known.files.get_mut(&file)?.redirect.as_ref()?;
        (at.elapsed() < REDIRECT_TERM).then(|| url.clone())
    }

    fn note_redirect(&self, file: usize, url: Url) {
        self.known.lock().file(file).redirect = Some((url, Instant::now()));
    }

    fn forget_redirect(&self, file: usize) {
        self.known.lock().file(file).redirect = None;
    }
}

impl Known {
    fn file(&mut self, file: usize) -> &mut KnownFile {
        if self.files.len() >= MAX_KNOWN && !self.files.contains_key(&file) {
            self.files.clear();
        }
        self.files.entry(file).or_default()
    }
}

/// Reads so many bytes of a body behind those that are skipped.
async fn read(
    mut response: Response,
    Skip(mut skip): Skip,
    length: u64,
    sink: &mut (impl FnMut(Bytes) + Send),
) -> Result<(), Failure> {
    let whole_file = response.status() == reqwest::StatusCode::OK;
    let mut left = length;
    while left > 0 {
        let chunk = timeout(BODY_PATIENCE, response.chunk())
            .await
            .map_err(|_| Failure::broken("it stopped in the middle of an answer"))??;
        let Some(mut chunk) = chunk else {
            return Err(Failure::broken("its answer ended early"));
        };
        let skipped = skip.min(chunk.len() as u64);
        skip -= skipped;
        let mut chunk = chunk.split_off(skipped as usize);
        if chunk.len() as u64 > left {
            if !whole_file {
                return Err(too_long());
            }
            chunk.truncate(left as usize);
        }
        left -= chunk.len() as u64;
        if !chunk.is_empty() {
            sink(chunk);
        }
    }
    if whole_file {
        // The rest is not wanted.
        return Ok(());
    }
    match timeout(END_PATIENCE, response.chunk()).await {
        Ok(Ok(Some(more))) if !more.is_empty() => Err(too_long()),
        // All that was asked for is here.
        _ => Ok(()),
    }
}

fn too_long() -> Failure {
    Failure::useless("its answer is longer than what was asked for")
}
