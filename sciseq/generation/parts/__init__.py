"""Parts that the generators are put together from."""
