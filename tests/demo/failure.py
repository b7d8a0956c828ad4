"""What makes the demo fail, told so that somebody can act on it."""

from pathlib import Path


class Failure(Exception):
    """Something that makes the demo fail; the message says what to do."""


def tail(path, lines=15):
    try:
        text = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text[-lines:])
