"""Bars of tqdm, for who asks for one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ._records import Stats

_PERIOD = 0.25
"""Seconds between two looks at an appliance."""


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("a progress bar needs tqdm: pip install vmtorrent[progress]") from error
    return tqdm


@contextlib.contextmanager
def hashing_bar(progress: bool | Callable[[int, int], object]) -> Iterator[Callable[[int, int], object] | None]:
    """What is called with bytes done and bytes in all."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        with _tqdm()(unit="B", unit_scale=True, unit_divisor=1024, desc="hashing") as bar:

            def told(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield told


class FillingBar:
    """Shows how much of an image is here, until it is closed."""

    def __init__(self, name: str, stats: Callable[[], Stats]) -> None:
        self._bar = _tqdm()(unit="B", unit_scale=True, unit_divisor=1024, desc=name)
        self._stats = stats
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vmtorrent-progress", daemon=True)
        self._thread.start()

    def _show(self) -> None:
        stats = self._stats()
        self._bar.total = stats.image_bytes
        self._bar.update(stats.present_bytes - self._bar.n)
        self._bar.set_postfix(peers=stats.peers, stalls=stats.stalls)

    def _run(self) -> None:
        # An appliance that is closed meanwhile has no figures any more.
        with contextlib.suppress(OSError):
            while not self._over.wait(_PERIOD):
                self._show()

    def close(self) -> None:
        """Takes a last look. Called twice it does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._show()
        self._bar.close()
