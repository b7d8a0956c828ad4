"""What earlier runs of a machine read, and when."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from . import _html, _vmtorrent
from ._records import File, Mismatch

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

StrPath = Union[str, "os.PathLike[str]"]


class Access(NamedTuple):
    """When runs first read a block. Times are microseconds of guest time: without the time spent waiting for data."""

    file: int
    """The file, as in `Profile.files`."""
    block: int
    """The block in the file, of `Profile.BLOCK` bytes."""
    runs: int
    """Runs that read it."""
    mean: float
    """Mean time, microseconds."""
    variance: float
    """Variance of the time over those runs, square microseconds."""
    min: int
    """Earliest time, microseconds."""
    max: int
    """Latest time, microseconds."""


class Profile:
    """When the runs of a machine first read each block of its image, so that the next run's blocks are here before the
    guest asks. It only ever changes the order of fetching: whatever stands in it, a guest reads right bytes."""

    __slots__ = ("_native",)

    BLOCK: int = _vmtorrent.Profile.BLOCK
    """Bytes of a block: 16384."""

    def __init__(self, native: _vmtorrent.Profile) -> None:
        """Made by `Profile.load`, `Profile.from_json` and `Appliance.profile`."""
        self._native = native

    @classmethod
    def load(cls, path: StrPath) -> Profile:
        """Reads a file that `save`, `launch(record=...)` or `vmtorrent launch --record` wrote.

        Raises:
            InvalidInputError: it is none, or can't be true; the message names the place.
            NotFoundError, Error: what the file system says.
        """
        return cls(_vmtorrent.Profile.load(os.fspath(path)))

    @classmethod
    def from_json(cls, text: str | bytes) -> Profile:
        """Reads a text that `to_json` wrote.

        Raises:
            InvalidInputError: it is none, or can't be true; the message names the place.

        >>> Profile.from_json("{}")
        Traceback (most recent call last):
        ...
        vmtorrent._errors.InvalidInputError: ...
        """
        return cls(_vmtorrent.Profile.from_json(text.encode() if isinstance(text, str) else text))

    def to_json(self) -> str:
        """The profile as a text."""
        return self._native.to_json().decode()

    def save(self, path: StrPath) -> None:
        """Writes a file in one step: at no time is there half a profile at `path`.

        Raises:
            Error: what the file system says.
        """
        self._native.save(os.fspath(path))

    @property
    def info_hash(self) -> str:
        """Identity of the image that was run, 40 hexadecimal digits."""
        return self._native.info_hash

    @property
    def name(self) -> str:
        """Name of that image."""
        return self._native.name

    @property
    def runs(self) -> int:
        """Runs that it is made of."""
        return self._native.runs

    @property
    def files(self) -> tuple[File, ...]:
        """The files of the image."""
        return tuple(File(path, length) for path, length in self._native.files)

    def __len__(self) -> int:
        """Distinct blocks that were read."""
        return self._native.block_count

    def blocks(self) -> list[Access]:
        """Every block that was read, by mean time."""
        return [Access(*row) for row in self._native.blocks()]

    def copy(self) -> Profile:
        """Another profile with the same runs."""
        return Profile(self._native.copied())

    def merge(self, other: Profile) -> None:
        """Adds the runs of another profile of the same image.

        Raises:
            InvalidInputError: it is of another image; the message names both, and nothing was changed.
        """
        self._native.merge(other._native)

    def merge_by_force(self, other: Profile) -> Mismatch:
        """Adds what fits of the runs of a profile, also of another image: an older version of this one, for instance."""
        return Mismatch(*self._native.merge_by_force(other._native))

    def to_pandas(self) -> pandas.DataFrame:
        """The blocks as a table, by mean time: `path`, `offset` (bytes), `runs`, `mean_s`, `std_s`, `min_s`, `max_s`
        (seconds).

        Raises:
            ImportError: pandas is missing: `pip install vmtorrent[pandas]`.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install vmtorrent[pandas]") from error
        blocks, files = self.blocks(), self.files
        return pandas.DataFrame(
            {
                "path": [files[b.file].path for b in blocks],
                "offset": [b.block * self.BLOCK for b in blocks],
                "runs": [b.runs for b in blocks],
                "mean_s": [b.mean / 1e6 for b in blocks],
                "std_s": [b.variance**0.5 / 1e6 for b in blocks],
                "min_s": [b.min / 1e6 for b in blocks],
                "max_s": [b.max / 1e6 for b in blocks],
            }
        )

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draws the blocks: time across, place in the image upwards. `options` go to `Axes.scatter`.

        Raises:
            ImportError: matplotlib is missing: `pip install vmtorrent[plot]`.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install vmtorrent[plot]") from error
        if ax is None:
            ax = plt.subplots()[1]
        starts = [0]
        for file in self.files:
            starts.append(starts[-1] + file.length)
        blocks = self.blocks()
        times = [b.mean / 1e6 for b in blocks]
        places = [(starts[b.file] + b.block * self.BLOCK) / (1 << 20) for b in blocks]
        ax.scatter(times, places, **{"s": 2, **options})
        ax.set_xlabel("guest time, s")
        ax.set_ylabel("place in the image, MiB")
        ax.set_title(f"{self.name}: {len(blocks)} blocks, {self.runs} runs")
        return ax

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Profile):
            return NotImplemented
        return self._native.equals(other._native)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<vmtorrent.Profile {self.name!r} {self.runs} runs, {len(self)} blocks>"

    def _repr_html_(self) -> str:
        return _html.profile(self.name, self.runs, self.files, self.blocks(), self.BLOCK)
