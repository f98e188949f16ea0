"""Geometric problems: residual, start and public function, one file each."""
