"""Prices come in files, or one by one. This module knows nothing about daemons or folders."""

from collections.abc import Collection
from decimal import Decimal
from hashlib import sha256

from django.db import connections, transaction
from django.db.models import Avg, OuterRef, Subquery
from django.db.models.functions import Round
from django.utils import timezone

from shop.models import Price, PriceChange, PriceFile, Product, Supplier
from shop.price_files import read_prices, supplier_code


def import_prices(name: str, content: bytes) -> int | None:
    """Import a price file completely or not at all.

    Returns how many prices it has, or None if it was imported before. The record of the file and
    its prices are committed together. If two processes import the same file, one waits for the
    other's commit and then finds the record. Raises BadPriceFile.
    """
    prices = read_prices(content)
    with transaction.atomic():
        file, is_new = PriceFile.objects.get_or_create(
            name=name, digest=sha256(content).hexdigest(), defaults={"prices": len(prices)}
        )
        if not is_new:
            return None
        set_prices(prices, file)
    return len(prices)


@transaction.atomic
def set_price(sku: str, amount: Decimal) -> tuple[Decimal | None, Decimal]:
    """Set one price. Returns the old price (None if there was none) and the new one.

    Raises Product.DoesNotExist for an unknown SKU: only a file adds products.
    """
    product = Product.objects.get(sku=sku)
    price = Price.objects.select_for_update().filter(product=product).first()
    old = price and price.amount
    if old != amount:
        change = PriceChange(
            product=product, old_amount=old, amount=amount, changed_at=timezone.now()
        )
        change.save()
        apply_changes([change])
    return old, amount


def set_prices(amounts: dict[str, Decimal], file: PriceFile) -> None:
    products = known_products(amounts.keys())
    current = Price.objects.select_for_update().in_bulk([each.pk for each in products.values()])
    changes = []
    for sku, amount in amounts.items():
        old = current.get(products[sku].pk)
        if old is None or old.amount != amount:
            changes.append(
                PriceChange(
                    product=products[sku],
                    file=file,
                    old_amount=old and old.amount,
                    amount=amount,
                    changed_at=file.imported_at,
                )
            )
    PriceChange.objects.bulk_create(changes)
    apply_changes(changes)


def apply_changes(changes: list[PriceChange]) -> None:
    features = connections[Price.objects.db].features
    Price.objects.bulk_create(
        [
            Price(product_id=each.product_id, amount=each.amount, valid_from=each.changed_at)
            for each in changes
        ],
        update_conflicts=True,
        update_fields=["amount", "valid_from"],
        # PostgreSQL and SQLite need the unique fields here, MySQL refuses them.
        unique_fields=["product"] if features.supports_update_conflicts_with_target else None,
    )


def known_products(skus: Collection[str]) -> dict[str, Product]:
    """Return the product of each SKU. An unknown SKU becomes a new product."""
    products = Product.objects.in_bulk(skus, field_name="sku")
    missing = sorted(set(skus) - products.keys())
    if missing:
        suppliers = known_suppliers({supplier_code(sku) for sku in missing})
        Product.objects.bulk_create(
            [Product(sku=sku, name=sku, supplier=suppliers[supplier_code(sku)]) for sku in missing],
            ignore_conflicts=True,
        )
        products |= Product.objects.in_bulk(missing, field_name="sku")
    return products


def known_suppliers(codes: Collection[str]) -> dict[str, Supplier]:
    Supplier.objects.bulk_create(
        [Supplier(code=code) for code in sorted(codes)], ignore_conflicts=True
    )
    return Supplier.objects.in_bulk(codes, field_name="code")


def refresh() -> str:
    """Compute the average price of each supplier: `run_daemon shop.prices.refresh --every 30s`"""
    prices = Price.objects.filter(product__supplier=OuterRef("pk"))
    average = prices.values("product__supplier").annotate(average=Round(Avg("amount"), 2))
    refreshed = Supplier.objects.update(average_price=Subquery(average.values("average")))
    return f"averages of {refreshed} suppliers"
