"""What became of each item of a batch."""

from enum import IntEnum


class Status(IntEnum):
    """Outcome of one item; ``status.advice`` says what it means and what to do.

    >>> Status(0)
    <Status.CONVERGED: 0>
    """

    advice: str

    def __new__(cls, value: int, advice: str) -> "Status":
        member = int.__new__(cls, value)
        member._value_ = value
        member.advice = advice
        return member

    CONVERGED = 0, "Converged to a minimum: the answer and its gradient are exact."
    MAX_STEPS = 1, "Stopped before convergence: raise max_steps or give a better init."
    SADDLE = 2, "Stationary, but not a minimum: start elsewhere or give more data."
    DEGENERATE = (
        3,
        "The data do not determine the answer (collinear or coincident points, say): add points off the line.",
    )
    TOO_FEW_POINTS = 4, "Too few unmasked points of positive weight: PnP needs 4, or 3 with an init."
    INFEASIBLE = (
        5,
        "No start from which every point has a residual (PnP: points behind the camera): check the init, the "
        "axes (z forward) and the signs of the camera parameters.",
    )
    BAD_WEIGHTS = 6, "A weight is negative: weights multiply the squared residual and must be >= 0."
    BAD_CAMERA = 7, "A focal length is zero: check the camera parameters."
    NOT_FINITE = 8, "The input has a NaN or an infinity at an unmasked point, in the camera, weights or init."
