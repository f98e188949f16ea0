"""Pixel -> ray -> pixel of every camera model: the largest distance, in pixels.

    python benchmarks/undistortion.py [--points 4000]

Usual parameters (those of the tests); points up to 0.9 and 0.999 of the model's valid field, half of them right there.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.cameras.samples import PARAMS, camera, points_in_field


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=4000)
    options = parser.parse_args()
    print("| model | up to 0.9 of the field | up to 0.999 | without a ray |\n|---|---|---|---|")
    for name in PARAMS:
        model, cells, lost = camera(name), [], 0
        for within in (0.9, 0.999):
            pixels, valid, _ = model.project(points_in_field(model, options.points, within))
            bearings, found = model.unproject(pixels)
            lost += int((~(valid & found)).sum())
            cells.append(f"{(model.project(bearings).points2d - pixels).norm(dim=-1).max():.0e}")
        print(f"| {name} | {' | '.join(cells)} | {lost} |")


if __name__ == "__main__":
    main()
