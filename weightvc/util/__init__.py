"""Helpers that know nothing of weights: errors, durable file writing, canonical text."""
