"""Baskets reserve stock until they are ordered or expire."""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

import daemonkit
from shop.models import Basket, BasketLine, Notice, Product


class OutOfStock(Exception):
    """There are fewer pieces than the customer wants."""


class BasketClosed(Exception):
    """The basket has been ordered, or has expired."""


@transaction.atomic
def put(basket: Basket, product: Product, quantity: int = 1) -> BasketLine:
    if not still_open(basket.pk).update(touched_at=timezone.now()):
        raise BasketClosed(str(basket))
    enough = Product.objects.filter(pk=product.pk, in_stock__gte=quantity)
    if not enough.update(in_stock=F("in_stock") - quantity):
        raise OutOfStock(product.sku)
    return BasketLine.objects.create(
        basket=basket, product=product, quantity=quantity, unit_price=product.price.amount
    )


@transaction.atomic
def order(basket: Basket, address: str = "") -> None:
    """Order the basket. The customer gets a notice at the address: both are committed, or none."""
    closed = {"state": Basket.State.ORDERED, "closed_at": timezone.now()}
    if not still_open(basket.pk).update(**closed):
        raise BasketClosed(str(basket))
    if address:
        Notice.objects.create(basket=basket, address=address)
        daemonkit.wake("notices")  # once this is committed


def expire(older_than: timedelta, at_most: int = 500) -> int:
    """Give back the stock of baskets not touched for ``older_than``. Returns their number."""
    deadline = timezone.now() - older_than
    forgotten = Basket.objects.filter(state=Basket.State.OPEN, touched_at__lt=deadline)
    baskets = forgotten.order_by("touched_at").values_list("pk", flat=True)[:at_most]
    return sum(expire_one(basket, deadline) for basket in baskets)


@transaction.atomic
def expire_one(basket: int, deadline: datetime) -> bool:
    closed = {"state": Basket.State.EXPIRED, "closed_at": timezone.now()}
    if not still_open(basket).filter(touched_at__lt=deadline).update(**closed):
        return False  # the customer, or another process, came first
    for line in BasketLine.objects.filter(basket=basket).order_by("product"):
        Product.objects.filter(pk=line.product_id).update(in_stock=F("in_stock") + line.quantity)
    return True


def still_open(basket: int) -> QuerySet[Basket]:
    return Basket.objects.filter(pk=basket, state=Basket.State.OPEN)
