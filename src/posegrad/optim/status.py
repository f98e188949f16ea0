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
    DEGENERATE = 3, "The data do not determine the answer: give more of them, or other ones."
    TOO_FEW_POINTS = 4, "Too few unmasked data of positive weight."
    INFEASIBLE = 5, "No start from which every residual is defined: check the init."
    BAD_WEIGHTS = (
        6,
        "A weight is negative, or a matrix not positive semi-definite: weights multiply the squared residual.",
    )
    BAD_CAMERA = 7, "A camera parameter is out of its range (a focal length of zero): check them."
    NOT_FINITE = 8, "The input has a NaN or an infinity where it counts, or the answer overflows its dtype."
    BAD_INIT = (
        9,
        "The init is not on its manifold (a rotation not orthonormal to 0.1, or a reflection): normalise it.",
    )
    BAD_LOSS = 10, "A parameter of the robust loss is out of its range (a scale that is not > 0): check it."
    BAD_PRIOR = 11, "The prior's information is not positive semi-definite, or its mean no pose: check them."
    BAD_CONSTRAINT = (
        12,
        "A constraint holds no rotation, a direction of length zero or a number that is not finite.",
    )
    NO_OTHER = 13, "There is no further minimum: fewer were found than were asked for."
    NO_FEASIBLE_POINT = (
        14,
        "No point that satisfies the constraints was found: check them, or start elsewhere.",
    )
    DEPENDENT_CONSTRAINTS = (
        15,
        "The gradients of the active constraints are linearly dependent, so the multipliers are not determined: drop "
        "what repeats another.",
    )
    WEAKLY_ACTIVE = (
        16,
        "A constraint is active with a multiplier of zero: the answer is a minimum, but it has different gradients to "
        "either side.",
    )
