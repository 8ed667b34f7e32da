"""Gates: how much of every field, of every number or of every layer a tower lets through."""
