"""Which index: the cheapest that holds a recall within limits of memory and latency, measured on real users' interests.

Exact search is measured first and sets the price to beat. Clusterings of growing size then say, without an index, how many
lists each user's exact items lie behind: that prices every inverted file, and the cheapest prices are built and measured on
the full catalog. What a price cannot make cheaper than the best measured is not built.
"""
