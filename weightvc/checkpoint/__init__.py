"""Checkpoints on disk: lazy reading, streaming sharded writing, and the files that travel along."""
