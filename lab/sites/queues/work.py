"""The task: a query, and a word to the benchmark who has made it, and when."""

import os
import time

import redis

from lab.sites.work import select_one


def report(url: str) -> None:
    select_one()
    with redis.Redis.from_url(url) as client:
        client.rpush("ticked", f"{os.getpid()} {time.monotonic()}")
    time.sleep(0.01)
