"""What daemonkit costs, and what it saves: ``python -m benchmarks``.

Everything is measured in one run, side by side with what people write today, and told as ratios to
a stated reference. The contestants are in ``lab/contestants``, a class each, and processes of
their own; those in ``lab/sites/bare`` never import daemonkit. A part is a module with
``measure(servers, quick=...)``, which yields tables; ``frame.py`` has what all parts share.
"""
