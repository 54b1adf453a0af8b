"""Imagined customers, so that the daemons of a shop without real ones have something to do."""

from contextlib import suppress
from random import Random

from django.db.models import F

from shop import baskets
from shop.models import Basket, Product

DELIVERY = 20
MOST = 3  # of one product, and products in a basket


def visit(customers: int, random: Random) -> str:
    """Each customer fills a basket; every other one, more or less, pays for it."""
    sold_out = Product.objects.filter(in_stock__lt=MOST)
    sold_out.update(in_stock=F("in_stock") + DELIVERY)
    for_sale = list(Product.objects.filter(price__isnull=False).select_related("price")[:1000])
    if not for_sale:
        return "nothing has a price yet"
    paid = sum(shop_around(for_sale, random) for _ in range(customers))
    return f"{customers} baskets, {paid} ordered"


def shop_around(for_sale: list[Product], random: Random) -> bool:
    basket = Basket.objects.create()
    for product in random.sample(for_sale, k=min(MOST, len(for_sale))):
        with suppress(baskets.OutOfStock):
            baskets.put(basket, product, random.randint(1, MOST))
    pays = random.random() < 0.5
    if pays:
        baskets.order(basket)
    return pays
