"""Parts that the generators share, each usable alone."""
