"""The job of `posegrad data check`."""

from __future__ import annotations

from posegrad.authoring.config import CheckConfig
from posegrad.authoring.outcome import Outcome
from posegrad.data.check import check_dataset


def check(config: CheckConfig) -> Outcome:
    """One line per problem, notes, and a summary; exit code 1 if there is any problem."""
    findings = check_dataset(config.path, split=config.split, quick=config.quick)
    lines = [str(item) for item in (*findings.problems, *findings.notes)]
    counts = [_counted(number, what) for what, number in findings.counts.items()]
    problems = len(findings.problems)
    verdict = _counted(problems, "problems") if problems else "no problem"
    lines.append(f"{config.path}: {', '.join([*counts, verdict])}")
    return Outcome("\n".join(lines), 1 if problems else 0)


def _counted(number: int, things: str) -> str:
    """A number with its noun, which comes in the plural."""
    singular = things.removesuffix("es") if things == "meshes" else things.removesuffix("s")
    return f"{number} {singular if number == 1 else things}"
