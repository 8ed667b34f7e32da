"""Multi-interest candidate retrieval: logs in, diverse candidates out, with proof."""

__version__ = "0.1.0"
