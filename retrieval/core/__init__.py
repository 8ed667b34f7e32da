"""Errors, settings, artifacts, seeds, logging: what every other layer stands on."""
