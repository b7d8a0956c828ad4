"""What Jupyter shows. Nothing from outside gets into a page unescaped, and no page asks for anything elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from ._units import show_bytes

if TYPE_CHECKING:
    from ._profile import Access
    from ._records import Extent, File, Stats

_COLORS = {
    "missing": "#e3e3e3",
    "present": "#2a9d5c",
    "zero": "#b7dfc6",
    "written": "#d97706",
    "zeroed": "#f3d3a2",
}
_WIDTH, _HEIGHT, _ROWS = 640, 10, 6


def _map(extents: Iterable[Extent], length: int) -> str:
    """Where the bytes of a file are: lines of cells, each with the colors of its part in their shares."""
    if length <= 0:
        return ""
    row_bytes = -(-length // _ROWS)
    parts: list[str] = []
    for extent in extents:
        at, end = extent.offset, extent.offset + extent.length
        while at < end:
            row = at // row_bytes
            stop = min(end, (row + 1) * row_bytes)
            x = (at - row * row_bytes) / row_bytes * _WIDTH
            width = (stop - at) / row_bytes * _WIDTH
            if extent.kind != "missing" and width >= 0.05:
                parts.append(
                    f'<rect x="{x:.2f}" y="{row * (_HEIGHT + 2)}" width="{max(width, 0.5):.2f}" height="{_HEIGHT}" '
                    f'fill="{_COLORS[extent.kind]}"/>'
                )
            at = stop
    rows = "".join(
        f'<rect x="0" y="{row * (_HEIGHT + 2)}" width="{_WIDTH}" height="{_HEIGHT}" fill="{_COLORS["missing"]}"/>'
        for row in range(_ROWS)
    )
    height = _ROWS * (_HEIGHT + 2)
    return (
        f'<svg role="img" aria-label="piece map" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">'
        f"{rows}{''.join(parts)}</svg>"
    )


def _legend(kinds: Sequence[str]) -> str:
    return " ".join(
        f'<span style="white-space:nowrap"><span style="display:inline-block;width:.8em;height:.8em;'
        f'background:{_COLORS[kind]}"></span> {kind}</span>'
        for kind in kinds
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:right">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def appliance(name: str, path: str | None, length: int, extents: Iterable[Extent], stats: Stats) -> str:
    """An appliance: the map of its boot disk, and its figures."""
    rows = [
        ("present", f"{show_bytes(stats.present_bytes)} of {show_bytes(stats.image_bytes)} ({stats.present_share:.1%})"),
        ("fetched", show_bytes(stats.fetched_bytes)),
        ("for reads that waited", show_bytes(stats.demand_bytes)),
        ("read ahead", show_bytes(stats.readahead_bytes)),
        ("from a profile", show_bytes(stats.profile_bytes)),
        ("in the background", show_bytes(stats.background_bytes)),
        ("uploaded", show_bytes(stats.uploaded_bytes)),
        ("read by the guest", show_bytes(stats.guest_read_bytes)),
        ("written by the guest", show_bytes(stats.guest_written_bytes)),
        ("waits", f"{stats.stalls} in {stats.stall_seconds:.2f} s"),
        ("median wait", f"{stats.demand_p50_ms:.1f} ms"),
        ("99th percentile", f"{stats.demand_p99_ms:.1f} ms"),
        ("peers", str(stats.peers)),
    ]
    where = f"<div><code>{escape(path)}</code></div>" if path else ""
    return (
        f"<div><b>{escape(name)}</b>{where}{_map(extents, length)}"
        f"<div>{_legend(tuple(_COLORS))}</div>{_table(rows)}</div>"
    )


def closed(name: str) -> str:
    """An appliance that was closed."""
    return f"<div><b>{escape(name)}</b>: closed</div>"


def seed(name: str, magnet: str, stats: Stats | None) -> str:
    """A seed: its link and its figures."""
    if stats is None:
        return closed(name)
    rows = [("uploaded", show_bytes(stats.uploaded_bytes)), ("peers", str(stats.peers))]
    return f"<div><b>{escape(name)}</b><div><code>{escape(magnet)}</code></div>{_table(rows)}</div>"


def profile(name: str, runs: int, files: Sequence[File], blocks: Sequence[Access], block_length: int) -> str:
    """A profile: which blocks were read; late ones are darker."""
    starts: list[int] = []
    total = 0
    for file in files:
        starts.append(total)
        total += file.length
    last = max((b.mean for b in blocks), default=0.0) or 1.0
    cells: dict[int, float] = {}
    count = 2048
    for block in blocks:
        place = int((starts[block.file] + block.block * block_length) * count // max(total, 1))
        cells.setdefault(place, block.mean)
    per_row = count // _ROWS + 1
    width = _WIDTH / per_row
    drawn = "".join(
        f'<rect x="{place % per_row * width:.2f}" y="{place // per_row * (_HEIGHT + 2)}" width="{width:.2f}" '
        f'height="{_HEIGHT}" fill="#1d4ed8" fill-opacity="{0.3 + 0.7 * mean / last:.2f}"/>'
        for place, mean in sorted(cells.items())
    )
    height = _ROWS * (_HEIGHT + 2)
    rows = [
        ("runs", str(runs)),
        ("blocks", f"{len(blocks)} ({show_bytes(len(blocks) * block_length)})"),
        ("last first read", f"{last / 1e6:.1f} s of guest time"),
    ]
    return (
        f'<div><b>{escape(name)}</b><br><svg role="img" aria-label="blocks that were read" width="{_WIDTH}" '
        f'height="{height}">{drawn}</svg>{_table(rows)}</div>'
    )
