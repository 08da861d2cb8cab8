"""The local object store."""
