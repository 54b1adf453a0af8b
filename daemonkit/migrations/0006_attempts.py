from django.db import migrations, models


class Migration(migrations.Migration):
    """Three new columns with defaults in the database. Processes of the release before it do not
    know them and go on."""

    dependencies = [("daemonkit", "0005_processes")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="attempt",
            field=models.PositiveIntegerField(db_default=1, default=1),
        ),
        migrations.AddField(
            model_name="run",
            name="tries",
            field=models.TextField(null=True),
        ),
        migrations.AddField(
            model_name="run",
            name="result",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
    ]
