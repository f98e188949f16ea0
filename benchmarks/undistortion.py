"""Pixel -> ray -> pixel of every camera model: the largest distance, in pixels.

    python benchmarks/undistortion.py [--points 4000] [--strong]

Usual parameters (those of the tests), or strong distortion; points up to 0.9 and 0.999 of the model's valid field, half
of them right there. Pixels beyond 1e4, beside a pole, are left out.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.cameras.samples import PARAMS, STRONG, camera, points_in_field


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("--strong", action="store_true", help="folds near the centre, poles, pincushions")
    options = parser.parse_args()
    print("| model | up to 0.9 of the field | up to 0.999 | without a ray |\n|---|---|---|---|")
    for name, params in STRONG if options.strong else PARAMS.items():
        model, cells, lost = camera(name, params), [], 0
        for within in (0.9, 0.999):
            pixels, valid, _ = model.project(points_in_field(model, options.points, within))
            bearings, found = model.unproject(pixels)
            lost += int((~(valid & found)).sum())
            seen = found & (
                pixels.norm(dim=-1) < 1e4
            )  # beside a pole an image reaches farther than any sensor
            cells.append(f"{(model.project(bearings).points2d - pixels)[seen].norm(dim=-1).max():.0e}")
        label = f"{name} {params[model.num_pixel_params :]}" if options.strong else name
        print(f"| {label} | {' | '.join(cells)} | {lost} |")


if __name__ == "__main__":
    main()
