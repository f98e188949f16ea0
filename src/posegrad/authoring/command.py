"""The jobs of `posegrad data` under one name."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import subcommand

from posegrad.authoring.check import check
from posegrad.authoring.config import CheckConfig, RenderJob
from posegrad.authoring.outcome import Outcome
from posegrad.authoring.render import render

Job = Annotated[RenderJob, subcommand("render")] | Annotated[CheckConfig, subcommand("check")]


def data(job: Job) -> Outcome:
    """Render meshes into a dataset, check a dataset, show its annotations."""
    if isinstance(job, RenderJob):
        return render(job)
    return check(job)
