"""Generators of sequences, fields and frames: shared parts, and their presets."""
