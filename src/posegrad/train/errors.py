"""The error that a user of the command line can act on."""

__all__ = ["RunError"]


# Not a ValueError: tyro turns those, raised by a dataclass that it fills, into a box of several lines.
class RunError(Exception):
    """A setting, file or folder of a run is not usable; the message is one sentence with the fix."""
