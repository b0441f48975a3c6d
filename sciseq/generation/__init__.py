"""Generators of discrete sequences, and of text, as estimators built from parts."""
