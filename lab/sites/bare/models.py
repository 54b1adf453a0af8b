"""One model, as every site has: naming its table is what loads the database driver at the start."""

from django.db import models


class Entry(models.Model):
    note = models.CharField(max_length=200)

    class Meta:
        managed = False

    def __str__(self) -> str:
        return self.note
