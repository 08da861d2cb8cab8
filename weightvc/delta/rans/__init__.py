"""Entropy coder of level ``best``: interleaved rANS over tokens, each under its context's own table.

``docs/format/rans.md`` specifies each byte; :mod:`weightvc.delta.rans.coder` has the two functions.
"""
