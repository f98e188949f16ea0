"""The walk-through is walked: the commands of docs/own-object.md in their order, with tiny settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from posegrad import cli

PAGE = Path(__file__).parents[2] / "docs" / "own-object.md"
TINY = {
    "data render": "--train-frames 6 --test-frames 2 --width 160 --height 120 --samples 1 --occluded 0",
    "train": "--steps 2 --batch-size 3 --image-size 64 --keypoints 8 --backbone test_efficientnet --threads 1"
    " --precision float32 --pictures 1",
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("posegrad ") for line in lines)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def tiny(words: list[str]) -> list[str]:
    """The command with the options of its kind replaced."""
    changes = next((v.split() for k, v in TINY.items() if words[: len(k.split())] == k.split()), [])
    replaced = {word for word in changes if word.startswith("--")}
    kept: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        if word not in replaced and before not in replaced:
            kept.append(word)
    return kept + changes


def test_the_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (mesh,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(mesh, str(PAGE), "exec"), {})
    for words in commands():
        assert cli.main(tiny(words)) == 0, words
    printed = capsys.readouterr().out
    assert "object 1: mug.ply, 118.0 x 80.0 x 90.0 mm, diameter 129.1 mm" in printed
    assert "no problem" in printed
    assert Path("mug.png").stat().st_size > 10_000
    assert "note: " not in printed
