"""Generators of token sequences."""
