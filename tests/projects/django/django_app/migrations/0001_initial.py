"""The first table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes the table of visitors."""

    operations = (
        migrations.CreateModel(
            name="Visitor",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80, unique=True)),
                ("count", models.IntegerField(default=0)),
            ],
        ),
    )
