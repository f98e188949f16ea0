"""What a check of a dataset has found, one line per kind of problem and file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Problem:
    """One kind of problem in one file.

    Args:
        file: where, relative to the dataset if it is inside; the dataset itself as it was given.
        what: is wrong, as first met.
        fix: how to put it right.
        frames: image ids where it was met; empty if it is not a matter of frames.
        error: False for a note, which does not make the check fail.
    """

    file: str
    what: str
    fix: str
    frames: list[int] = field(default_factory=list)
    error: bool = True

    def __str__(self) -> str:
        where = ""
        if unique := sorted(set(self.frames)):
            shown = ", ".join(str(i) for i in unique[:4])
            many = "" if len(unique) <= 4 else f" and {len(unique) - 4} more"
            where = f", frame{'s' if len(unique) > 1 else ''} {shown}{many}"
        before, between = ("", "; fix: ") if self.error else ("note: ", "; ")
        line = f"{before}{self.file}{where}: {self.what}{between}{self.fix}."
        return " ".join(line.split())


class Findings:
    """Collects problems; equal kinds in one file become one with several frames.

    >>> findings = Findings(Path("set"))
    >>> for frame in (3, 8):
    ...     findings.add(Path("set/test/000001/rgb"), "missing", "the picture is missing", "restore it", frame)
    >>> print(*findings.problems)
    test/000001/rgb, frames 3, 8: the picture is missing; fix: restore it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.counts: dict[str, int] = {}
        self._problems: dict[tuple[str, str], Problem] = {}

    def add(
        self, file: Path, kind: str, what: str, fix: str, frame: int | None = None, *, error: bool = True
    ) -> None:
        """One problem; `kind` tells those that are one from those that are another."""
        inside = file != self.root and file.is_relative_to(self.root)
        name = str(file.relative_to(self.root) if inside else file)
        problem = self._problems.setdefault((name, kind), Problem(name, what, fix, error=error))
        if frame is not None:
            problem.frames.append(frame)

    def note(self, file: Path, kind: str, what: str, fix: str, frame: int | None = None) -> None:
        """Something to know that is no problem."""
        self.add(file, kind, what, fix, frame, error=False)

    def count(self, what: str, number: int) -> None:
        """Adds to the summary."""
        self.counts[what] = self.counts.get(what, 0) + number

    @property
    def problems(self) -> list[Problem]:
        """Errors in the order in which they were met."""
        return [p for p in self._problems.values() if p.error]

    @property
    def notes(self) -> list[Problem]:
        """The others."""
        return [p for p in self._problems.values() if not p.error]
