"""Measures what cures "MySQL server has gone away": docs/gone-away.md."""
