//! What a program that embeds the library relies on: any executor, types that go between threads.

use bytes::Bytes;
use vmtorrent::image::{Image, PublishOptions};
use vmtorrent::{Appliance, Session};

use super::common::published;
use super::{MIB, content, options, session};

/// The least of an executor.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[test]
fn the_api_works_from_any_executor() {
    // No tokio runtime here: the session brings its own.
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    block_on(async {
        let host = session(&scratch.path().join("cache")).await;
        let appliance = host
            .launch(image, options(&scratch.path().join("state"), None))
            .await
            .unwrap();
        appliance
            .write_at(0, 0, Bytes::from(vec![1; 4096]))
            .await
            .unwrap();
        appliance.flush(0).await.unwrap();
        assert_eq!(appliance.read_at(0, 0, 4096).await.unwrap(), vec![1; 4096]);
        appliance.shutdown().await.unwrap();
        host.shutdown().await.unwrap();
    });
}

#[test]
fn public_types_go_where_an_embedder_needs_them() {
    fn everywhere<T: Send + Sync + 'static>() {}
    everywhere::<Session>();
    everywhere::<Appliance>();
    everywhere::<vmtorrent::Seed>();
    everywhere::<vmtorrent::Error>();
    everywhere::<Image>();
    everywhere::<vmtorrent::Stats>();
}
