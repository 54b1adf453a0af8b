from django.urls import path
from shop import views

urlpatterns = [
    path("prices/", views.price_list),
    path("prices/<str:sku>/", views.price_detail),
    path("baskets/<int:number>/order/", views.order),
]

handler404 = "shop.views.not_found"
