"""What daemonkit costs, and what it saves: ``python -m benchmarks``.

Everything is measured in one run, side by side with what people write today, and told as ratios.
The contestants are processes of their own: those in ``bare/`` never import daemonkit.
"""
