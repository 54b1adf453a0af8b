from django.db.models.functions import Now

from daemonkit import ModelPoller
from shop import notices
from shop.models import Notice


class Command(ModelPoller):
    help = "Mail customers about their orders."
    queryset = Notice.objects.filter(sent_at=None).select_related("basket").order_by("pk")
    done = {"sent_at": Now()}
    wake_on = "notices"
    claim = "lease"
    threads = 8

    def process(self, notice: Notice) -> None:
        notices.send(notice)
