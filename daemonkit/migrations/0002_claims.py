from django.db import migrations, models


class Migration(migrations.Migration):
    """A new table. Processes of the release before it do not know it and go on."""

    dependencies = [("daemonkit", "0001_ledger_and_leases")]

    operations = [
        migrations.CreateModel(
            name="Claim",
            fields=[
                (
                    "name",
                    models.CharField(max_length=200, primary_key=True, serialize=False),
                ),
                ("holder", models.CharField(blank=True, max_length=200)),
                ("epoch", models.PositiveBigIntegerField(default=0)),
                ("renewals", models.PositiveBigIntegerField(default=0)),
                ("seconds", models.FloatField()),
                ("touched", models.DateTimeField()),
            ],
            options={"abstract": False},
        ),
    ]
