"""Parts that the generators are put together from, each without the others."""
