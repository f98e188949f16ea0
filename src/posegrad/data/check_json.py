"""Reading the JSON files of a dataset that is being checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posegrad.data.errors import DatasetError
from posegrad.data.findings import Findings
from posegrad.data.json_files import read_json


def read_object(path: Path, findings: Findings) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none, which is then a finding."""
    try:
        content = read_json(path)
    except DatasetError as error:
        if path.is_file():
            reason = str(error.__cause__ or error)
            findings.add(path, "json", f"truncated or not JSON ({reason})", "copy or download it again")
        else:
            findings.add(path, "absent", "no such file", "restore it")
        return None
    except (OSError, RecursionError) as error:
        findings.add(path, "json", f"cannot be read ({error})", "check the file and its permissions")
        return None
    if not isinstance(content, dict):
        findings.add(
            path, "json", f"expected a JSON object, got a {type(content).__name__}", 'write {"<id>": .., ..}'
        )
        return None
    for key in _doubled(path):
        findings.add(
            path, f"twice {key}", f"the key {key!r} is there twice: readers see the last", "delete one"
        )
    return content


def _doubled(path: Path) -> list[str]:
    """Keys of the outermost object that occur more than once."""
    latest: list[list[str]] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        latest[:] = [[key for key, _ in items]]  # the outermost object is closed last

    json.loads(path.read_text(), object_pairs_hook=pairs)
    keys = latest[0] if latest else []
    return sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []


def by_frame(content: dict[str, Any] | None, path: Path, findings: Findings) -> dict[int, Any] | None:
    """The same with integer keys; others are findings."""
    if content is None:
        return None
    found: dict[int, Any] = {}
    for key, value in content.items():
        if not key.isdigit():
            findings.add(
                path,
                "key",
                f"the key {key!r} is no image id",
                "keys are the numbers of the pictures, without zeros",
            )
            continue
        if int(key) in found:
            findings.add(
                path, f"twice {int(key)}", f"frame {int(key)} is there twice", "delete one", int(key)
            )
        found[int(key)] = value
    return found
