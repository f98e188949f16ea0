"""The error that a user of the command line can act on."""

__all__ = ["RunError"]


class RunError(ValueError):
    """A setting, file or folder of a run is not usable; the message is one sentence with the fix."""
