"""Fields of items, users and events as vectors: looked up, gated, brought together."""
