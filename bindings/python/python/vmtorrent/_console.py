"""The text of a guest's console, and what is looked for in it."""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Callable, Sequence

_KEPT = 1 << 20
"""Characters that are kept at most."""
_TAIL = 2000
"""Characters that a message shows."""


class ConsoleText:
    """What was printed so far. A search goes on behind what the last one found."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text = ""
        self._searched = 0
        self._lock = threading.Lock()

    def feed(self, take: Callable[[], bytes]) -> None:
        """Adds what `take` gives; the oldest text goes when there is too much."""
        with self._lock:
            self._add(take())

    def _add(self, data: bytes) -> None:
        self.text += self._decoder.decode(data)
        over = len(self.text) - _KEPT
        if over > 0:
            self.text = self.text[over:]
            self._searched = max(self._searched - over, 0)

    def search(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The first match behind the last one."""
        found = pattern.search(self.text, self._searched)
        if found:
            self._searched = found.end()
        return found

    @property
    def tail(self) -> str:
        """The end of it, for messages."""
        return self.text[-_TAIL:]


def compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """A regular expression; `^` and `$` match at lines."""
    return re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern


def shown(words: Sequence[str], status: int | None) -> str:
    """How a VMM ended, for messages."""
    how = "was stopped before it ran" if status is None else f"ended with status {status}"
    if status is not None and status < 0:
        how = f"was ended by signal {-status}"
    return f"the VMM {words[0]} {how}"
