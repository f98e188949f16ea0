"""Closed-form and globally started pose solvers: each returns candidates and which of them are valid."""
