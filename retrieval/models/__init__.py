"""User encoders, the item tower, and the types between them."""
