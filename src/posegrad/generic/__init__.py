"""The user's own residual or objective on a manifold, as a differentiable layer."""
