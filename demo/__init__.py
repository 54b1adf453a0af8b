"""The story that daemonkit began with, told in under a minute: ``make demo``."""
