"""Use cases: one file each, joining the rooms below."""
