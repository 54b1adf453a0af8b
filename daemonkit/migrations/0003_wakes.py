from django.db import migrations, models


class Migration(migrations.Migration):
    """A new table. Processes of the release before it do not know it and go on."""

    dependencies = [("daemonkit", "0002_claims")]

    operations = [
        migrations.CreateModel(
            name="Wake",
            fields=[
                (
                    "name",
                    models.CharField(max_length=200, primary_key=True, serialize=False),
                ),
                ("times", models.PositiveBigIntegerField(default=0)),
            ],
        ),
    ]
