"""What a row found, and the table."""

from dataclasses import dataclass, field


@dataclass
class Result:
    """One line: `figure` is what the target is about, `detail` the numbers that it was made of."""

    row: str
    what: str
    figure: str
    target: str
    met: bool | None
    detail: str
    numbers: dict = field(default_factory=dict)
    # The row by which it can be had again; several lines may come out of one run.
    again: str = ""

    @property
    def verdict(self):
        return {True: "met", False: "NOT MET", None: "-"}[self.met]

    def command(self):
        return f"tests/bench/bench.py {self.again or self.row}"

    def line(self):
        return (
            f"{self.row:<12} {self.figure:<26} target {self.target:<14} {self.verdict:<8} {self.what}: {self.detail}"
            f"   [{self.command()}]"
        )

    def as_json(self):
        return {
            "row": self.row,
            "what": self.what,
            "figure": self.figure,
            "target": self.target,
            "met": self.met,
            "detail": self.detail,
            "numbers": self.numbers,
            "command": self.command(),
        }


def markdown(results):
    lines = [
        "| row | what | figure | target | | numbers | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        cells = [r.row, r.what, r.figure, r.target, r.verdict, r.detail, f"`{r.command()}`"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


class Skip(Exception):
    """This machine lacks what a row needs; the message names it."""
