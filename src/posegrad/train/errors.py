"""The errors that a user of the command line can act on."""

__all__ = ["RunError", "Stopped"]


# Not a ValueError: tyro turns those, raised by a dataclass that it fills, into a box of several lines.
class RunError(Exception):
    """A setting, file or folder of a run is not usable; the message is one sentence with the fix."""


class Stopped(Exception):
    """A signal ended a run that can go on; the message says how, `code` is the exit code of a shell."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.code = 128 + signal_number
