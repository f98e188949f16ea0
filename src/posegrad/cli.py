"""The command line: `posegrad train`, `eval`, `predict`, `score`, `data`, `calibrate`, `demo`."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

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
        130 if interrupted, 141 if nobody reads the output any more, as shells have it.
    """
    if any(importlib.util.find_spec(name) is None for name in (*_EXTRA, "tyro")):
        return _fail(f"the commands need the training extra: {_INSTALL}")
    from posegrad.data import DatasetError
    from posegrad.train import RunError
    from posegrad.train.errors import Stopped

    try:
        return _dispatch(args)
    except (RunError, DatasetError) as error:
        return _fail(str(error))
    except Stopped as stop:
        return _fail(str(stop), code=stop.code)
    except BrokenPipeError:
        # Who reads the output, `head` or a pager, has enough; devnull takes what is left at the interpreter's exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A full disk in the middle of a run, say: the system's words and the file say it all.
        return _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)


def _fail(message: str, code: int = 2) -> int:
    if "Traceback" in message:
        # A worker process of the data loader wraps its error in a traceback, "package.Type: sentence" at the end.
        message = message.strip().splitlines()[-1].partition(": ")[2]
    if message:  # of several processes, one speaks for all
        print(f"posegrad: {' '.join(message.split())}", file=sys.stderr)
    return code


def _resumed(words: Sequence[str]) -> Path | None:
    """The run that `train` is to go on with: its settings are the defaults of the other options then."""
    if words[:1] == ["train"]:
        for word, following in zip(words, [*words[1:], ""], strict=True):
            option, equals, value = word.partition("=")
            if option == "--resume" and (value or following):
                return Path(value if equals else following)
    return None


def _dispatch(args: Sequence[str] | None) -> int:
    import tyro

    from posegrad.authoring import data
    from posegrad.calibration import calibrate
    from posegrad.experiments.run import demo
    from posegrad.train.predict import predict
    from posegrad.train.resume import stored_config
    from posegrad.train.run import evaluate, train
    from posegrad.train.scoring import score

    words = list(sys.argv[1:] if args is None else args)
    run = _resumed(words)
    training = train if run is None else functools.partial(train, config=stored_config(run))
    report = tyro.extras.subcommand_cli_from_dict(
        {
            "train": training,
            "eval": evaluate,
            "predict": predict,
            "score": score,
            "data": data,
            "calibrate": calibrate,
            "demo": demo,
        },
        prog="posegrad",
        description=_DESCRIPTION,
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    if report.table:
        print(report.table)
    if page := getattr(report, "page", None):
        print(f"\nreport: {page}")
    return getattr(report, "exit_code", 0)


if __name__ == "__main__":
    sys.exit(main())
