"""Exact search: a product in low precision with a known error bound finds the candidates, the one float64 score decides.

The argument, for a user u and items i. Let s be the score (`index.kernels`), t the product of the lowered vectors, both
in the units of the lowered numbers, and e >= |s - t| the error bound below. Let F be the n-th largest t - e among the
items that u may get and that were looked at so far. At least n items score F or more, so an item with t + e < F scores
strictly below n others, whatever the order of equals: it is not in the result. Everything else is kept, re-scored and
sorted by (-score, row). When more is kept than a buffer holds, the kept items are re-scored at once and the best n of
them stay; F is then the n-th of these scores, without any error. Nothing is ever left out for lack of room.

The bound. Vectors are multiplied by powers of two so that no component exceeds 1: nothing overflows. With q the user's
interest, v the item, q~ and v~ what they were lowered to (residuals are measured, not estimated):

    e = |q - q~| |v| + |q~| |v - v~| + (D + 16) 2^-23 |q~| (|v| + |v - v~|) + D 2^-120 + 2^-150 / unit

the Cauchy-Schwarz inequality for the rounding of both factors; float32 additions in any order, each with a relative
error of 2^-24 (doubled), which also covers the float64 sum and the last rounding to float32; what underflow can take
from D products; and the spacing of float32 near zero in the units of the caller. For several interests t is the largest
product and e the largest bound. A product that is itself rounded to bfloat16 adds 2^-8 |t|; an engine whose additions err
more than float32's, as a GPU's may, multiplies their term by its `summing`.

Items are visited by descending norm: F rises early, blocks of alike items have tight bounds, and the search ends at the
first block whose norm no user of the group can still use.
"""
