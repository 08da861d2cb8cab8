"""History: ordinary git, read safely and written durably."""
