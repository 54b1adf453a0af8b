"""A client process: ``python -m tests.rpc.hammer PORT PRICE_FILE --number N --seconds S``.

Calls as fast as it can, knows what every answer must be, and says at its end what it saw. Prices
that it sets are those of a product of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thriftpy2.transport import TTransportException

from tests.rpc.shop import connected, idl, read_prices


class Hammer:
    def __init__(self, client: Any, prices: dict[str, str], number: int, pauses: float = 0) -> None:
        self.client = client
        self.pauses = pauses
        self.random = random.Random(number)
        own = sorted(sku for sku in prices if sku.startswith("YUAN"))[number]
        possible = [client.get_price(own).amount]
        self.prices = {sku: price for sku, price in prices.items() if not sku.startswith("YUAN")}
        self.skus = sorted(self.prices)
        self.acme = sorted(sku for sku in prices if sku.startswith("ACME"))
        self.report: dict[str, Any] = {
            "own": own, "possible": possible, "right": 0, "unavailable": 0, "slowest": 0.0,
            "wrong": [], "hung_up": None,
        }  # fmt: skip

    def go_on(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.report["hung_up"]:
            calls = [self.read, self.list, self.read_own, self.write]
            self.make(*self.random.choices(calls, weights=[6, 1, 1, 2]))
            if self.random.random() < self.pauses:
                time.sleep(self.random.uniform(0, 2))

    def make(self, call: Callable[[], bool]) -> None:
        started = time.monotonic()
        try:
            if call():
                self.report["right"] += 1
            else:
                self.report["wrong"].append(f"{call.__name__}: a wrong answer")
        except idl.Unavailable:
            self.report["unavailable"] += 1
        except (TTransportException, ConnectionError) as error:
            self.report["hung_up"] = f"{call.__name__}: {error!r}"
        except Exception as error:  # a timeout among them
            self.report["wrong"].append(f"{call.__name__}: {error!r}")
        seconds = time.monotonic() - started
        self.report["slowest"] = max(self.report["slowest"], seconds)

    def read(self) -> bool:
        sku = self.random.choice(self.skus)
        price = self.client.get_price(sku)
        return (price.sku, price.amount) == (sku, self.prices[sku])

    def list(self) -> bool:
        found = {price.sku: price.amount for price in self.client.prices_of("ACME", "")}
        return found == {sku: self.prices[sku] for sku in self.acme}

    def read_own(self) -> bool:
        return self.client.get_price(self.report["own"]).amount in self.report["possible"]

    def write(self) -> bool:
        """A write that found the database unavailable may have been made, or not."""
        before = self.report["possible"]
        amount = f"{self.random.randint(1, 99_999)}.25"
        self.report["possible"] = [*before, amount]
        change = self.client.set_price(self.report["own"], amount)
        self.report["possible"] = [amount]
        return change.old_amount in before and change.amount == amount


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("prices", type=Path)
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pauses", type=float, default=0, help="chance of one after a call")
    options = parser.parse_args()
    with connected(options.port) as client:
        hammer = Hammer(client, read_prices(options.prices), options.number, options.pauses)
        print("connected", flush=True)
        hammer.go_on(options.seconds)
    print(json.dumps(hammer.report), flush=True)


if __name__ == "__main__":
    main()
