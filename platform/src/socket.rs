//! What the standard library does not offer of sockets. Invariant: a hint that a system does not know changes nothing.

use std::io;

/// Has the system tell of incoming data only when at least so many bytes wait (`SO_RCVLOWAT`), or when the other side
/// has ended the connection; 1 is what sockets begin with.
///
/// A block of 16 KiB comes in a dozen segments. Who knows that nothing can be done before the last one is so woken once
/// for it, and not a dozen times. Where the system has no such option (Windows), nothing changes.
///
/// # Errors
/// Those of `setsockopt`.
#[cfg(unix)]
pub fn set_receive_low_water(socket: impl std::os::fd::AsFd, bytes: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let bytes = libc::c_int::try_from(bytes.max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is borrowed, so it stays open; the option is an integer, of which the address and the size
    // are given, and which the call only reads.
    #[expect(unsafe_code, reason = "no safe wrapper has this option")]
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same where the system has no such option.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn set_receive_low_water<S>(_: S, _: usize) -> io::Result<()> {
    Ok(())
}

/// Has the system take no more data to send while so many bytes wait in it that were not sent once (`TCP_NOTSENT_LOWAT`);
/// what is under way does not count.
///
/// What the system holds can't be put in another order or taken back, and it would take megabytes. Where it has no such
/// option, nothing changes.
///
/// # Errors
/// Those of `setsockopt`.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub fn set_unsent_low_water(socket: impl std::os::fd::AsFd, bytes: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let bytes = libc::c_int::try_from(bytes.max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is borrowed, so it stays open; the option is an integer, of which the address and the size
    // are given, and which the call only reads.
    #[expect(unsafe_code, reason = "no safe wrapper has this option")]
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same where the system has no such option.
///
/// # Errors
/// None.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn set_unsent_low_water<S>(_: S, _: usize) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn readiness_comes_with_the_last_byte_and_with_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        let ours = tokio::net::TcpStream::from_std(ours).unwrap();
        set_receive_low_water(&ours, 10_000).unwrap();
        theirs.write_all(&[1; 9_999]).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), ours.readable());
        assert!(early.await.is_err(), "a byte is missing");
        theirs.write_all(&[1]).unwrap();
        ours.readable().await.unwrap();
        let mut buffer = [0; 20_000];
        assert_eq!(ours.try_read(&mut buffer).unwrap(), 10_000);
        // Only then is it forgotten that the socket was ready.
        assert!(ours.try_read(&mut buffer).is_err());
        // What has come counts at once when less is enough from now on.
        theirs.write_all(&[2; 100]).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), ours.readable());
        assert!(early.await.is_err());
        set_receive_low_water(&ours, 1).unwrap();
        ours.readable().await.unwrap();
        assert_eq!(ours.try_read(&mut buffer).unwrap(), 100);
        assert!(ours.try_read(&mut buffer).is_err());
        // The end is told whatever waits.
        set_receive_low_water(&ours, 10_000).unwrap();
        theirs.write_all(&[3; 5]).unwrap();
        drop(theirs);
        ours.readable().await.unwrap();
        let mut ours = ours.into_std().unwrap();
        ours.set_nonblocking(false).unwrap();
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [3; 5]);
    }
}
