"""Git for neural-network weights."""
