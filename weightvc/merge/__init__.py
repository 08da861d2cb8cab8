"""Merge methods: pure functions on task vectors."""
