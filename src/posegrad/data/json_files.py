"""The JSON files of a dataset; what is wrong with one is a sentence with its name and the fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posegrad.data.errors import DatasetError, DatasetFileError


def read_json(path: Path) -> Any:
    """The content of a JSON file; a missing or truncated one is one sentence with its name and the fix."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DatasetFileError(f"No file {path}: restore it, or check the path.") from None
    except (ValueError, RecursionError) as error:  # not JSON, not text, or an integer of thousands of digits
        raise DatasetError(
            f"{path} is truncated or not JSON ({error}): copy or download it again."
        ) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The same of a file that holds an object, as all of BOP's do."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(
            f'{path}: expected a JSON object like {{"<id>": ..}}, got a {type(content).__name__}.'
        )
    return content


def read_split(path: str | Path) -> dict[str, list[int]]:
    """Reads a split file: a JSON object of lists of image ids, such as {"train": [3, 8], "test": [17]}.

    Other entries (a scene id, a note) are ignored.

    Raises:
        DatasetError: no such file, or other content.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "split.json"
    ...     _ = path.write_text('{"train": [3, 8], "test": [17], "note": "by hand"}')
    ...     read_split(path)
    {'train': [3, 8], 'test': [17]}
    """
    content = read_json(Path(path))
    if not isinstance(content, dict):
        raise DatasetError(f'{path}: expected a JSON object like {{"train": [3, 8], "test": [17]}}.')
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    if not lists or not all(isinstance(i, int) for value in lists.values() for i in value):
        raise DatasetError(
            f'{path}: expected lists of integer image ids, like {{"train": [3, 8], "test": [17]}}.'
        )
    return lists
