"""What a command of `posegrad data` has to say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The text to print, and the exit code of the process."""

    table: str
    exit_code: int = 0
