import os

from django.apps import AppConfig


class LivesConfig(AppConfig):
    name = "tests.lives"

    def ready(self) -> None:
        if os.environ.get("LIVES_ASK_EARLY"):  # as some projects do, though Django warns of it
            from tests.lives.sql import say, session

            say(f"asked early on {session()}")
