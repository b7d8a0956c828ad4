"""Sizes as people write them."""

from __future__ import annotations

import re

from ._errors import InvalidInputError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_bytes(option: str, value: int | str) -> int:
    """Bytes of a number or of a text such as `"1G"` or `"512M"` (powers of 1024).

    >>> parse_bytes("memory", "1G") == parse_bytes("memory", 1 << 30)
    True
    """
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"(\d+)([KMGT]?)(?:iB|B)?", value.strip(), re.ASCII)
    if not found:
        import errno

        text = f"`{option}` can't be {value!r}: write bytes, or a text such as \"512M\" or \"2G\""
        raise InvalidInputError(errno.EINVAL, text)
    return int(found[1]) * _UNITS[found[2]]


def show_bytes(value: float) -> str:
    """Bytes for people.

    >>> show_bytes(3 << 20)
    '3.0 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
