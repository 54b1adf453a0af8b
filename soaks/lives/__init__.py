"""A site with three daemons, which the soak of signals starts."""
