"""Product, threshold and candidates in one pass: the products of a few items with 64 columns never leave the first-level cache.

No C compiler is needed: the instructions are emitted through numba's own code generator, which is there anyway.
"""
