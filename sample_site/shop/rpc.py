"""The prices over Thrift, on the same models as the REST view; see prices.thrift.

This module knows nothing about daemons, or about sockets, which are in thrift_server.py.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connection

from daemonkit import fresh_connections
from shop.models import Price, Product, Supplier
from shop.price_files import read_amount
from shop.prices import set_price
from shop.views import as_json

try:
    import thriftpy2
    from thriftpy2.thrift import TApplicationException, TException, TProcessor
except ImportError as missing:
    raise ImproperlyConfigured("price_service needs a package: pip install thriftpy2") from missing

logger = logging.getLogger(__name__)
idl = thriftpy2.load(str(Path(__file__).with_name("prices.thrift")), module_name="prices_thrift")

PAGE = 50


@fresh_connections
class PriceHandler:
    """The methods of ``service Prices``. Each call is a unit of work."""

    def get_price(self, sku: str) -> Any:
        price = Price.objects.select_related("product__supplier").filter(product__sku=sku).first()
        if price is None:
            raise idl.NotFound(f"nothing with the SKU {sku} has a price")
        return as_struct(price)

    def prices_of(self, supplier: str, after: str) -> list[Any]:
        if not Supplier.objects.filter(code=supplier).exists():
            raise idl.NotFound(f"there is no supplier {supplier}")
        prices = Price.objects.select_related("product__supplier").order_by("product__sku")
        later = prices.filter(product__supplier__code=supplier, product__sku__gt=after or "")
        return [as_struct(price) for price in later[:PAGE]]

    def set_price(self, sku: str, amount: str) -> Any:
        try:
            old, new = set_price(sku, read_amount(amount or ""))
        except ValueError as error:
            raise idl.InvalidAmount(str(error)) from error
        except Product.DoesNotExist as error:
            raise idl.NotFound(f"there is nothing with the SKU {sku}") from error
        return idl.Change(sku=sku, old_amount=None if old is None else str(old), amount=str(new))


def as_struct(price: Price) -> Any:
    fields = as_json(price)
    text = {"amount": str(fields["amount"]), "since": fields["since"].isoformat()}
    return idl.Price(**fields | text)


class PriceProcessor(TProcessor):
    """Answers every call with a result or an exception of the service, never a driver's error.

    It is outside of ``fresh_connections``, which must see the error of the database in order to
    drop the connection.
    """

    def __init__(self) -> None:
        super().__init__(idl.Prices, PriceHandler())

    def process_in(self, protocol: Any) -> tuple[Any, ...]:
        name, number, result, call = super().process_in(protocol)
        return name, number, result, call and functools.partial(self.answer, name, call)

    def answer(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except TException:
            raise  # declared in prices.thrift
        except (Error, connection.Database.Error) as error:
            logger.exception("%s failed in the database", name)
            raise idl.Unavailable("the database gave no answer") from error
        except Exception as error:
            logger.exception("%s failed", name)
            raise TApplicationException(TApplicationException.INTERNAL_ERROR, "a bug") from error
