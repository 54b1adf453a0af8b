"""Products and their prices, baskets, notices to customers, and daily reports."""

from django.db import models
from django.utils import timezone

CURRENCY = "EUR"  # the only one; a price in another currency is an error
AMOUNT = {"max_digits": 10, "decimal_places": 2}


class Supplier(models.Model):
    """All its SKUs start with its code: ACME sells ACME-00042."""

    code = models.CharField(max_length=20, unique=True)
    average_price = models.DecimalField(**AMOUNT, null=True)

    def __str__(self) -> str:
        return self.code


class Product(models.Model):
    sku = models.CharField(max_length=40, unique=True)
    name = models.CharField(max_length=200)
    supplier = models.ForeignKey(Supplier, on_delete=models.PROTECT, related_name="products")
    in_stock = models.PositiveIntegerField(default=0, help_text="Pieces that no basket holds.")

    def __str__(self) -> str:
        return self.sku


class PriceFile(models.Model):
    """A price file that was imported. The constraint keeps it from being imported twice."""

    name = models.CharField(max_length=255)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the content.")
    prices = models.PositiveIntegerField()
    imported_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "digest"], name="price_file_imported_once"),
        ]

    def __str__(self) -> str:
        return self.name


class Price(models.Model):
    """The current price of a product."""

    product = models.OneToOneField(Product, on_delete=models.CASCADE, primary_key=True)
    amount = models.DecimalField(**AMOUNT)
    valid_from = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.amount)


class PriceChange(models.Model):
    """A former and a new price. ``file`` is None if the price was set without a file."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="price_changes")
    file = models.ForeignKey(PriceFile, null=True, on_delete=models.PROTECT, related_name="changes")
    old_amount = models.DecimalField(**AMOUNT, null=True)
    amount = models.DecimalField(**AMOUNT)
    changed_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.old_amount} to {self.amount}"


class Basket(models.Model):
    """Open until it is ordered or expires. While it is open, its lines reserve stock."""

    class State(models.TextChoices):
        OPEN = "open"
        ORDERED = "ordered"
        EXPIRED = "expired"

    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    touched_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["state", "touched_at"], name="basket_touched"),
            models.Index(fields=["state", "closed_at"], name="basket_closed"),
        ]

    def __str__(self) -> str:
        return f"{self.state} basket {self.pk}"


class BasketLine(models.Model):
    basket = models.ForeignKey(Basket, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    quantity = models.PositiveIntegerField()
    unit_price = models.DecimalField(**AMOUNT)

    def __str__(self) -> str:
        return f"{self.quantity} at {self.unit_price}"


class Notice(models.Model):
    """A mail to a customer about an order, written in the transaction of the order: an outbox."""

    basket = models.ForeignKey(Basket, on_delete=models.CASCADE, related_name="notices")
    address = models.EmailField()
    sent_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], condition=models.Q(sent_at=None), name="notice_unsent"),
            models.Index(fields=["sent_at"], name="notice_sent"),  # for MariaDB and MySQL
        ]

    def __str__(self) -> str:
        return f"notice to {self.address} about {self.basket}"


class DailyReport(models.Model):
    day = models.DateField(unique=True)
    orders = models.PositiveIntegerField()
    revenue = models.DecimalField(max_digits=12, decimal_places=2)
    baskets_expired = models.PositiveIntegerField()
    price_changes = models.PositiveIntegerField()
    written_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.day}: {self.orders} orders, {self.revenue}"
