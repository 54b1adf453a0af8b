from django.db import migrations, models

import daemonkit.models


class Migration(migrations.Migration):
    """A new table. Processes of the release before it do not know it and go on."""

    dependencies = [("daemonkit", "0003_wakes")]

    operations = [
        migrations.CreateModel(
            name="PollerRow",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("poller", models.CharField(max_length=200)),
                ("key", daemonkit.models.KeyTextField(max_length=255)),
                ("owner", models.CharField(blank=True, max_length=200)),
                ("epoch", models.PositiveBigIntegerField(default=0)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("not_before", models.DateTimeField()),
                ("error", models.TextField(blank=True)),
                ("dead", models.BooleanField(default=False)),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["poller", "dead", "not_before"], name="poller_row_due"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("poller", "key"), name="poller_row_once"
                    )
                ],
            },
        ),
    ]
