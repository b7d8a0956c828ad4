# pyright: reportPrivateUsage=false
"""What belongs to one launch, and how it ends.

Invariant: the VMM ends before its disk does, the mount before its directory, whatever ends it: `close`, an exception,
the garbage collector, or the interpreter. In a forked process nothing of it is touched.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping, Sequence

from . import _vmtorrent
from ._errors import UnavailableError
from ._profile import Profile
from ._progress import FillingBar
from ._records import Fill
from ._units import parse_bytes

_living: weakref.WeakSet[Machine] = weakref.WeakSet()


class Machine:
    """An appliance, its VMM, and the directories that were made for them."""

    def __init__(self, mount: MountPoint) -> None:
        self.process_id: int = os.getpid()
        self.mount = mount
        self.work: str | None = None
        self.appliance: _vmtorrent.Appliance | None = None
        self.vmm: _vmtorrent.Process | None = None
        self.bar: FillingBar | None = None
        _living.add(self)

    @property
    def is_forked(self) -> bool:
        """Whether this is a fork of the process that it belongs to."""
        return self.process_id != os.getpid()

    def make_work(self) -> str:
        """A directory for what a VMM needs while it runs; short, since sockets have short names."""
        self.work = tempfile.mkdtemp(prefix="vmt-")
        return self.work

    def clean_up(self) -> None:
        """Removes the directories, when the VMM and the mount are gone."""
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)
            self.work = None
        self.mount.remove()

    def end_at_once(self) -> None:
        """The last resort: kills the VMM and takes the disk away. What was not flushed is lost, as with a real machine."""
        if self.is_forked:
            return
        _living.discard(self)
        if self.vmm is not None:
            self.vmm.break_off()
        if self.appliance is not None:
            self.appliance.break_off()
        if self.bar is not None:
            self.bar.close()
        self.clean_up()

    def end_quietly(self) -> None:
        """Ends it in order where nobody can be told of a failure."""
        if self.is_forked:
            return
        with contextlib.suppress(OSError, KeyboardInterrupt):
            if self.vmm is not None:
                self.vmm.end(False)
            if self.appliance is not None:
                self.appliance.shutdown(30.0)
        self.end_at_once()

    def end_unclosed(self) -> None:
        """Ends it because nobody can close it any more."""
        if not self.is_forked:
            self.end_quietly()
            warnings.warn("an appliance was not closed: use `with`, or close()", ResourceWarning, stacklevel=2)

    def tell_what_is_left(self) -> None:
        """Warns of what the VMM could not take back."""
        ended = None if self.vmm is None else self.vmm.poll()
        for left in [] if ended is None else ended[1]:
            warnings.warn(left, RuntimeWarning, stacklevel=3)

    def forget(self) -> None:
        """It was closed: nothing is to be done any more."""
        _living.discard(self)


class MountPoint:
    """Where an image appears. It is removed only if it was made here, and never with content."""

    def __init__(self, wanted: bool | str | os.PathLike[str]) -> None:
        self.path: str | None = None
        self._made = False
        if wanted is True:
            base = os.environ.get("XDG_RUNTIME_DIR")
            usable = base is not None and os.path.isabs(base) and os.path.isdir(base)
            self.path = tempfile.mkdtemp(prefix="vmtorrent-", dir=base if usable else None)
            self._made = True
        elif wanted is not False:
            self.path = os.path.abspath(os.fspath(wanted))

    def remove(self) -> None:
        """Removes a directory that was made here."""
        if self._made and self.path is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
            self._made = False


def not_mounted() -> UnavailableError:
    """For who asks for a path where there is none."""
    import errno

    return UnavailableError(errno.EOPNOTSUPP, "the image is not mounted: launch it without mount=False")


@atexit.register
def _end_all() -> None:
    for machine in list(_living):
        # Whatever is raised must not leave the others behind.
        try:
            machine.end_quietly()
        except BaseException:
            with contextlib.suppress(BaseException):
                machine.end_at_once()
    _vmtorrent.end_all()


def session_settings(
    listen: str | None,
    cache: str | os.PathLike[str] | None,
    download_limit: int | None,
    upload_limit: int | None,
    upload_slots: int | None,
    discovery: bool,
    local_discovery: bool,
    dht: bool,
    dht_bootstrap: Sequence[str] | None,
    utp: bool,
    peer_exchange: bool,
    profile_exchange: bool,
    compression: bool,
    max_connections: int,
    metadata_timeout: float | None,
    max_disk: int | str | None,
) -> _vmtorrent.SessionSettings:
    """Options of a session as the native module takes them."""
    return {
        "listen": listen,
        "cache": None if cache is None else os.fspath(cache),
        "download_limit": download_limit,
        "upload_limit": upload_limit,
        "upload_slots": upload_slots,
        "discovery": discovery,
        "local_discovery": local_discovery,
        "dht": dht,
        "dht_bootstrap": None if dht_bootstrap is None else list(dht_bootstrap),
        "utp": utp,
        "peer_exchange": peer_exchange,
        "profile_exchange": profile_exchange,
        "compression": compression,
        "max_connections": max_connections,
        "metadata_timeout": metadata_timeout,
        "max_disk": None if max_disk is None else parse_bytes("max_disk", max_disk),
    }


def appliance_settings(
    mount: MountPoint,
    state: str | os.PathLike[str] | None,
    ephemeral: bool,
    allow_other: bool,
    peers: Sequence[str],
    web_seeds: Sequence[str],
    fill: Fill,
    profile: Profile | str | os.PathLike[str] | None,
    auto_profile: bool,
    record: str | os.PathLike[str] | None,
    read_timeout: float | None,
    trace: str | os.PathLike[str] | None,
) -> _vmtorrent.ApplianceSettings:
    """Options of an appliance as the native module takes them."""
    if profile is not None and not isinstance(profile, Profile):
        profile = Profile.load(profile)
    return {
        "mount": mount.path,
        "state": None if state is None else os.fspath(state),
        "ephemeral": ephemeral,
        "allow_other": allow_other,
        "peers": list(peers),
        "web_seeds": list(web_seeds),
        "fill": fill,
        "profile": None if profile is None else profile._native,
        "auto_profile": auto_profile,
        "record": None if record is None else os.fspath(record),
        "read_timeout": read_timeout,
        "trace": None if trace is None else os.fspath(trace),
    }


def vmm_settings(
    vmm: str | Sequence[str | os.PathLike[str]],
    work: str,
    memory: int | str | None,
    cpus: int | None,
    name: str | None,
    image_format: str | None,
    variables: Mapping[str, str] | None,
    extra: Sequence[str],
    file: str | os.PathLike[str] | None,
    console: bool,
) -> _vmtorrent.VmmSettings:
    """Options of a VMM as the native module takes them."""
    return {
        "vmm": vmm if isinstance(vmm, str) else [os.fspath(word) for word in vmm],
        "memory": None if memory is None else parse_bytes("memory", memory),
        "cpus": cpus,
        "name": name,
        "format": image_format,
        "set": dict(variables or {}),
        "extra": list(extra),
        "file": None if file is None else os.fspath(file),
        "work": work,
        "console": console,
    }
