"""Plain measurements in, one self-contained page out."""
