"""Turning the outputs of a network into sequences: beam search, caches and CTC."""
