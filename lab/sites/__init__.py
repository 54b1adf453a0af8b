"""The Django sites in which contestants run; those without daemonkit never import it."""
