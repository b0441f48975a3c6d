"""Pure functions on tensors, each with one reference and faster backends beside it."""
