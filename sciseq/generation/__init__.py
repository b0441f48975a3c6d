"""Generators of discrete sequences: masked, block-wise and autoregressive."""
