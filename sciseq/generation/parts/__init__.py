"""What generators are made of: each part answers one question."""
