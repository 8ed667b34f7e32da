"""Vectors in the units and the precision of the product, with the norms and residuals that bound its error."""
