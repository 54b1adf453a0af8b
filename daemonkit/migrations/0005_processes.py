from django.db import migrations, models


class Migration(migrations.Migration):
    """Two new tables. Processes of the release before it do not know them and go on."""

    dependencies = [("daemonkit", "0004_poller_rows")]

    operations = [
        migrations.CreateModel(
            name="Process",
            fields=[
                (
                    "key",
                    models.CharField(max_length=200, primary_key=True, serialize=False),
                ),
                ("daemon", models.CharField(db_index=True, max_length=200)),
                ("touched", models.DateTimeField()),
                ("report", models.TextField()),
            ],
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("daemon", models.CharField(db_index=True, max_length=200)),
                ("verb", models.CharField(max_length=20)),
                ("given", models.DateTimeField()),
                ("until", models.DateTimeField(null=True)),
                ("taken_by", models.CharField(blank=True, max_length=200)),
                ("details", models.TextField()),
            ],
        ),
    ]
