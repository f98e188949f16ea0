"""The command line: `posegrad train`, `posegrad eval`, `posegrad data`, `posegrad calibrate`, `posegrad demo`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["main"]

# What the commands import from the extra `train`, by module name.
_EXTRA = (
    "PIL",
    "accelerate",
    "cv2",
    "embreex",
    "matplotlib",
    "safetensors",
    "scipy",
    "tensorboard",
    "timm",
    "torchvision",
    "tqdm",
    "trimesh",
)
_INSTALL = "pip install 'posegrad[train]'"
_DESCRIPTION = (
    "End-to-end object pose: train keypoint networks through PnP, evaluate them, calibrate cameras."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: words after the program's name; None: those of the process.

    Returns:
        Exit code: 0; 1 if a checked dataset has problems; 2 after one line on stderr that says what to change;
        130 if interrupted.
    """
    if any(importlib.util.find_spec(name) is None for name in (*_EXTRA, "tyro")):
        return _fail(f"the commands need the training extra: {_INSTALL}")
    from posegrad.data import DatasetError
    from posegrad.train import RunError

    try:
        return _dispatch(args)
    except (RunError, DatasetError) as error:
        return _fail(str(error))
    except OSError as error:
        # A full disk in the middle of a run, say: the system's words and the file say it all.
        return _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)


def _fail(message: str, code: int = 2) -> int:
    if "Traceback" in message:
        # A worker process of the data loader wraps its error in a traceback, "package.Type: sentence" at the end.
        message = message.strip().splitlines()[-1].partition(": ")[2]
    print(f"posegrad: {' '.join(message.split())}", file=sys.stderr)
    return code


def _dispatch(args: Sequence[str] | None) -> int:
    import tyro

    from posegrad.authoring import data
    from posegrad.calibration import calibrate
    from posegrad.experiments.run import demo
    from posegrad.train.run import evaluate, train

    report = tyro.extras.subcommand_cli_from_dict(
        {"train": train, "eval": evaluate, "data": data, "calibrate": calibrate, "demo": demo},
        prog="posegrad",
        description=_DESCRIPTION,
        args=args,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    print(report.table)
    return getattr(report, "exit_code", 0)
