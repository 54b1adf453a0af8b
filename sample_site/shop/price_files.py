"""Read price files: CSV in UTF-8, the header sku,amount,currency, one price a line."""

import csv
import io
import re
from decimal import Decimal

from shop.models import CURRENCY

HEADER = ["sku", "amount", "currency"]
LONGEST_SKU = 40
# ASCII capitals only: MySQL compares "é", "E" and "e" as equal.
SKU = re.compile(r"(?P<supplier>[A-Z0-9]{1,20})-[A-Z0-9-]+")
AMOUNT = re.compile(r"[0-9]{1,8}(\.[0-9]{1,2})?")


class BadPriceFile(ValueError):
    """A price file has an error. The message names the line and the reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


def read_prices(content: bytes) -> dict[str, Decimal]:
    """Return the amount for each SKU. Raises BadPriceFile at the first wrong line."""
    lines = csv.reader(io.StringIO(decoded(content), newline=""), strict=True)
    prices: dict[str, Decimal] = {}
    try:
        if next(lines, None) != HEADER:
            raise ValueError(f"the header must be {','.join(HEADER)}")
        for line in lines:
            if line:
                sku, amount = read_line(line)
                if sku in prices:
                    raise ValueError(f"{sku} is in the file twice")
                prices[sku] = amount
        if not prices:
            raise ValueError("there is no price in the file")
    except (ValueError, csv.Error) as error:
        raise BadPriceFile(max(lines.line_num, 1), str(error)) from error
    return prices


def decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a byte order mark first
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadPriceFile(line, "this is not UTF-8") from error


def read_line(line: list[str]) -> tuple[str, Decimal]:
    if len(line) != len(HEADER):
        raise ValueError(f"{len(HEADER)} fields were expected, not {len(line)}")
    sku, amount, currency = line
    if not SKU.fullmatch(sku) or len(sku) > LONGEST_SKU:
        raise ValueError(f"{sku[:60]!r} is no SKU such as ACME-00042")
    price = read_amount(amount)
    if currency != CURRENCY:
        raise ValueError(f"the currency is {currency[:60]!r}, not {CURRENCY}")
    return sku, price


def read_amount(text: str) -> Decimal:
    if not AMOUNT.fullmatch(text) or not Decimal(text):
        raise ValueError(f"{text[:60]!r} is no price such as 12.50")
    return Decimal(text)


def supplier_code(sku: str) -> str:
    return sku.partition("-")[0]
