"""Minimisation on manifolds and its implicit gradients. Knows no geometry."""
