"""Generators of discrete sequences, one file for each method."""
