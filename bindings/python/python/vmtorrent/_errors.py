"""The exceptions. All derive from `Error`, which is an `OSError`: `errno` is the nearest error number."""

from __future__ import annotations


class Error(OSError):
    """Whatever this package reports; `errno` is the nearest error number, `strerror` says what was done, to what, and
    the remedy.

    >>> import errno, vmtorrent
    >>> try:
    ...     vmtorrent.launch("missing.torrent")
    ... except vmtorrent.Error as error:
    ...     error.errno == errno.ENOENT
    True
    """


class InvalidInputError(Error, ValueError):
    """An argument or option is wrong: change the call. `errno` is `EINVAL`."""


class InvalidTorrentError(Error, ValueError):
    """The .torrent file is broken or hostile: get it again from its publisher. `errno` is `EINVAL`."""


class NotFoundError(Error, FileNotFoundError):
    """A file, directory, URL or program does not exist: check the name. `errno` is `ENOENT`."""


class PermissionDeniedError(Error, PermissionError):
    """The system refuses: run as another user, or change permissions. `errno` is `EACCES` or what the system gave."""


class InUseError(Error):
    """A state directory, port, mount point or output is in use or exists: end the holder or choose another. `errno` is
    `EBUSY` or what the system gave."""


class UnavailableError(Error):
    """This system lacks what is needed, FUSE for example: install it, or use another way. `errno` is `EOPNOTSUPP`."""


class NetworkError(Error):
    """A tracker, peer or web server could not be reached, or answered nonsense: try again later. `errno` is `EIO` or
    what the system gave."""


class TimedOutError(Error, TimeoutError):
    """It did not come in time: the swarm is dead or too slow, or the guest says nothing. `errno` is `EIO` for data, since
    that is what a guest sees, and `ETIMEDOUT` for the rest."""


class NoSpaceError(Error):
    """The disk is full: free some space; what was acknowledged is safe. `errno` is `ENOSPC`."""


class IoError(Error):
    """The operating system reported an I/O error; `errno` is its number, or `EIO`."""


class CorruptError(Error):
    """Local data is damaged beyond what can be fetched again. `errno` is `EIO`."""


class ClosedError(Error):
    """The appliance or seed was closed, also while the call was waiting. `errno` is `ESHUTDOWN`."""


class ForkedError(Error):
    """The process was forked from one that uses this package: launch there before the fork, or use the `spawn` method
    of `multiprocessing`. `errno` is `EOPNOTSUPP`."""


class VmmError(Error):
    """The VMM ended before it did what was waited for; the message tells its status and the end of the console.
    `errno` is `ECHILD`."""
