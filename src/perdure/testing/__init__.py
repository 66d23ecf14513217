"""Perdure's simulator, laws and fault injection: `python -m perdure.testing.sim`."""
