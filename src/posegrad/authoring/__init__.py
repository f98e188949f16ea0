"""The command that makes and checks datasets: `posegrad data render`, `check`, `show`."""

from posegrad.authoring.command import data

__all__ = ["data"]
