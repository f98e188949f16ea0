"""Errors that a user of a dataset can act on: one sentence, with the file and the fix."""


class DatasetError(ValueError):
    """A dataset's content is absent, damaged or inconsistent; the message is one sentence with the fix.

    >>> from posegrad.data import BopDataset
    >>> try:
    ...     BopDataset("no such folder")
    ... except DatasetError as error:
    ...     print(error)
    No dataset folder no such folder: check the path.
    """


class DatasetFileError(DatasetError, FileNotFoundError):
    """A file or folder that the dataset needs is not there; the message names it and the fix.

    >>> issubclass(DatasetFileError, FileNotFoundError)
    True
    """

    def __str__(self) -> str:  # OSError would print a tuple of (errno, text) for some argument counts
        return str(self.args[0]) if self.args else ""
