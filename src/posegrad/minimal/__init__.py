"""Pose solvers that need no start, batched, on viewing rays; each returns ``(candidates: Pose (B, C), valid (B, C))``.

``p3p`` three points, ``sqpnp`` any number, ``ippe`` planes, ``dlt`` six or more. They raise for arguments of a
wrong shape or dtype, and not for what a batch holds, NaN included: a pose that is not valid is the identity, one unit
ahead.
"""
