"""Codecs that give back less than was stored: a task vector in few bits, only where somebody asked for it."""
