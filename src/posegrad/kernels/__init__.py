"""Fused CPU kernels: the solve of a pose and its gradient, item by item, compiled by numba.

Nothing here is imported before the first call that can use it. ``solver`` and ``gradient`` hold the two entry points,
which read all they need from one block of numbers (``block``): addresses, strides, settings. They are compiled once;
what depends on the camera is a table of three functions per family (``passes``), which they call by address.
"""
