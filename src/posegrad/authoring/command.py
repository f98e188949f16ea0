"""The jobs of `posegrad data` under one name."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import subcommand

from posegrad.authoring.check import check
from posegrad.authoring.config import CheckConfig, RenderJob, ShowConfig
from posegrad.authoring.outcome import Outcome
from posegrad.authoring.render import render
from posegrad.authoring.show import show

Job = (
    Annotated[RenderJob, subcommand("render")]
    | Annotated[CheckConfig, subcommand("check")]
    | Annotated[ShowConfig, subcommand("show")]
)


def data(job: Job) -> Outcome:
    """Render meshes into a dataset, check a dataset, show its annotations."""
    if isinstance(job, RenderJob):
        return render(job)
    if isinstance(job, CheckConfig):
        return check(job)
    return show(job)
