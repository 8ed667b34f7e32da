"""Realistic interaction logs with a known answer: every user's interests are planted, and written beside the log."""
