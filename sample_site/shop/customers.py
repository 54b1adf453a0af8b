"""Simulated customers, which give the daemons of the sample shop something to do."""

from contextlib import suppress
from random import Random

from django.db.models import F

from shop import baskets
from shop.models import Basket, Product

DELIVERY = 20
MAX_PRODUCTS = 3  # in one basket
MAX_QUANTITY = 3  # of one product


def visit(customers: int, random: Random) -> str:
    """Let each customer fill a basket, and about half of them pay for it."""
    sold_out = Product.objects.filter(in_stock__lt=MAX_QUANTITY)
    sold_out.update(in_stock=F("in_stock") + DELIVERY)
    for_sale = list(Product.objects.filter(price__isnull=False).select_related("price")[:1000])
    if not for_sale:
        return "nothing has a price yet"
    paid = sum(shop_around(for_sale, random) for _ in range(customers))
    return f"{customers} baskets, {paid} ordered"


def shop_around(for_sale: list[Product], random: Random) -> bool:
    basket = Basket.objects.create()
    for product in random.sample(for_sale, k=min(MAX_PRODUCTS, len(for_sale))):
        with suppress(baskets.OutOfStock):
            baskets.put(basket, product, random.randint(1, MAX_QUANTITY))
    pays = random.random() < 0.5
    if pays:
        baskets.order(basket)
    return pays
