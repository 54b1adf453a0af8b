"""What cures "MySQL server has gone away" and what does not, measured: docs/gone-away.md."""
