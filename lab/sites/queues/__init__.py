"""A site whose work is done by task queues, Celery's and django-q2's: what workers stand beside."""
