"""daemonkit, in the environment of the benchmarks themselves."""

from lab.contestants.base import Contestant


class Daemonkit(Contestant):
    name = "daemonkit"
    site = "kept"
