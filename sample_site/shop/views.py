"""REST views of prices and orders, on the same models that the daemons write."""

from typing import Any

from django.core.paginator import InvalidPage, Paginator
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET, require_POST

from shop import baskets
from shop.models import CURRENCY, Basket, Price, Supplier

PAGE = 50


@require_GET
def price_detail(request: HttpRequest, sku: str) -> JsonResponse:
    price = Price.objects.select_related("product__supplier").filter(product__sku=sku).first()
    if price is None:
        return problem(f"nothing with the SKU {sku} has a price")
    changes = price.product.price_changes.order_by("-changed_at", "-pk")[:10]
    history = [{"amount": each.amount, "since": each.changed_at} for each in changes]
    return JsonResponse({**as_json(price), "history": history})


@require_GET
def price_list(request: HttpRequest) -> JsonResponse:
    prices = Price.objects.select_related("product__supplier").order_by("product__sku")
    if code := request.GET.get("supplier"):
        if not Supplier.objects.filter(code=code).exists():
            return problem(f"there is no supplier {code}")
        prices = prices.filter(product__supplier__code=code)
    try:
        page = Paginator(prices, PAGE).page(request.GET.get("page", 1))
    except InvalidPage as error:
        return problem(str(error))
    return JsonResponse(
        {
            "count": page.paginator.count,
            "page": page.number,
            "pages": page.paginator.num_pages,
            "prices": [as_json(price) for price in page],
        }
    )


@require_POST
def order(request: HttpRequest, number: int) -> JsonResponse:
    """Order a basket. ``send_notices`` sends the notice to the ``address`` later."""
    basket = Basket.objects.filter(pk=number).first()
    if basket is None:
        return problem(f"there is no basket {number}")
    try:
        baskets.order(basket, request.POST.get("address", ""))
    except baskets.BasketClosed:
        return problem(f"basket {number} has been ordered, or has expired", status=409)
    return JsonResponse({"basket": number, "state": Basket.State.ORDERED})


def as_json(price: Price) -> dict[str, Any]:
    return {
        "sku": price.product.sku,
        "name": price.product.name,
        "supplier": price.product.supplier.code,
        "amount": price.amount,
        "currency": CURRENCY,
        "since": price.valid_from,
        "in_stock": price.product.in_stock,
    }


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    return problem(f"there is nothing at {request.path}")


def problem(sentence: str, status: int = 404) -> JsonResponse:
    return JsonResponse({"error": sentence}, status=status)
