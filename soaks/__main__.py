"""Long runs under random faults. The exit code is 1 if anything was wrong.

``python -m soaks [NAME...] [--seed 7] [--steps 1000] [--seconds 10]``
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import time
from random import Random

from soaks.coroutines import Coroutines
from soaks.signals import SignalsAtRandom
from soaks.soak import Size, Soak
from soaks.units import Units

SOAKS: dict[str, Soak] = {soak.name: soak for soak in (Units(), Coroutines(), SignalsAtRandom())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soaks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SOAKS)}: all")
    parser.add_argument("--variant", help="one variant, in this process")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--steps", type=int, help="of each variant")
    parser.add_argument("--seconds", type=float, help="for each variant, at the most")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SOAKS):
        parser.error(f"there is no soak {sorted(unknown)[0]!r}: name one of {', '.join(SOAKS)}")
    chosen = [SOAKS[name] for name in options.names or SOAKS]
    if options.variant:
        sys.exit(run(chosen[0], options.variant, options))
    results = [
        run_in_a_process(soak, variant, options) for soak in chosen for variant in soak.variants
    ]
    sys.exit(1 if any(results) else 0)


def run_in_a_process(soak: Soak, variant: str, options: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "soaks", soak.name, "--variant", variant]
    command += ["--seed", str(options.seed)]
    for name in ("steps", "seconds"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    return subprocess.run(command, check=False).returncode


def run(soak: Soak, variant: str, options: argparse.Namespace) -> int:
    """Run one variant here, and return the exit code."""
    print(f"{soak.name} on {variant}, --seed {options.seed}", flush=True)
    began = time.monotonic()
    size = Size(options.steps or soak.steps, options.seconds)
    report = soak.run(variant, Random(f"{options.seed} {variant}"), size)
    print(f"  {report}\n  {'WRONG' if report.wrong else 'well'}, {time.monotonic() - began:.0f} s")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    main()
