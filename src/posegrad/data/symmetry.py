"""The symmetries of an object as a finite set of transforms, as BOP defines them."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from posegrad.data.errors import DatasetError

ORTHOGONAL = 1e-3  # files give matrices with six digits and fewer


def symmetry_transforms(info: dict[str, Any], *, max_step: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Transforms of an object onto itself: every pose `T* S` looks like the true pose `T*`.

    Discrete symmetries are taken as listed (the list is not completed to a group). Rotations about an axis `a`
    through the offset `o` are replaced by `n = ceil(pi / max_step)` equal steps, so that no point of the object moves
    by more than about `max_step` diameters from one to the next; several axes are not composed with each other.
    With both kinds, the result is every continuous one after every discrete one: `x -> R_c (R_d x + t_d) + t_c`.

    Args:
        info: an object's entry of models_info.json; "symmetries_discrete" lists 4 x 4 matrices, row-major, translation
            in mm; "symmetries_continuous" lists {"axis": [x, y, z], "offset": [x, y, z] mm}. Others are ignored.
        max_step: longest way of a point between neighbouring steps, in diameters, > 0; BOP scores use 0.01.

    Returns:
        Rotations (S, 3, 3) and translations (S, 3) in mm, float64, identity first; S = 1 without symmetries.

    Raises:
        DatasetError: an entry is not a rigid transform, or an axis is zero.
        ValueError: `max_step` is not a number > 0.

    Reference:
        Hodan et al., "BOP Challenge 2020 on 6D Object Localization", ECCVW 2020, section 2.3.

    >>> bottle = {"symmetries_continuous": [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]}
    >>> R, t = symmetry_transforms(bottle, max_step=np.pi / 4)
    >>> R[1].round(6) + 0.0
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.],
           [ 0.,  0.,  1.]])
    >>> R.shape, t.shape
    ((4, 3, 3), (4, 3))
    """
    if not (isinstance(max_step, Real) and 0 < max_step < np.inf):
        raise ValueError(f"max_step: got {max_step!r}, expected a number > 0 (diameters).")
    R_d, t_d = _discrete(info.get("symmetries_discrete") or [])
    R_c, t_c = _continuous(info.get("symmetries_continuous") or [], max_step)
    R = R_c @ R_d[:, None]
    t = (R_c @ t_d[:, None, :, None])[..., 0] + t_c
    return R.reshape(-1, 3, 3), t.reshape(-1, 3)


def _discrete(entries: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    transforms = [np.eye(4)]
    for number, entry in enumerate(entries):
        matrix = _numbers(entry, 16, f"symmetries_discrete[{number}]").reshape(4, 4)
        R = matrix[:3, :3]
        rigid = np.abs(R @ R.T - np.eye(3)).max() < ORTHOGONAL and np.linalg.det(R) > 0
        if not rigid or np.abs(matrix[3] - [0, 0, 0, 1]).max() > 0:
            raise DatasetError(
                f"symmetries_discrete[{number}]: expected a rotation and a translation as a row-major 4 x 4 matrix "
                f"with the last row 0 0 0 1, got {matrix.ravel().tolist()}: correct models_info.json."
            )
        transforms.append(matrix)
    stacked = np.stack(transforms)
    return stacked[:, :3, :3], stacked[:, :3, 3]


def _continuous(entries: list[Any], max_step: float) -> tuple[np.ndarray, np.ndarray]:
    if not entries:
        return np.eye(3)[None], np.zeros((1, 3))
    steps = int(np.ceil(np.pi / max_step))  # the way round is at most pi diameters
    angle = 2 * np.pi / steps * np.arange(steps)[:, None, None]
    rotations, translations = [], []
    for number, entry in enumerate(entries):
        name = f"symmetries_continuous[{number}]"
        content = entry if isinstance(entry, dict) else {}
        axis = _numbers(content.get("axis"), 3, f"{name}.axis")
        offset = _numbers(content.get("offset", [0, 0, 0]), 3, f"{name}.offset")
        length = np.linalg.norm(axis)
        if length == 0:
            raise DatasetError(
                f"{name}.axis: got the zero vector, which has no direction: correct models_info.json."
            )
        x, y, z = axis / length
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        R = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
        rotations.append(R)
        translations.append(offset - R @ offset)
    return np.concatenate(rotations), np.concatenate(translations)


def _numbers(entry: Any, count: int, name: str) -> np.ndarray:
    try:
        values = np.array(entry, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise DatasetError(
            f"{name}: expected {count} finite numbers, got {entry!r}: correct models_info.json."
        )
    return values
