"""Stop requests, and waits that they end, inside one process."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from daemonkit import Pool
from daemonkit.process.signal_handlers import on_signals
from daemonkit.process.stopping import Stop, Tick
from daemonkit.process.watched import Unattended
from daemonkit.process.watcher import Watcher
from lab.waiting import eventually


def test_a_wait_lasts_until_its_time_has_passed_without_a_stop() -> None:
    assert Stop().wait(0.001)


def test_a_stop_ends_all_current_and_later_waits_of_all_threads() -> None:
    stop, ended = Stop(), []
    threads = [threading.Thread(target=lambda: ended.append(stop.wait(60))) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.ask("enough")
    for thread in threads:
        thread.join(5)
    assert ended == [False, False, False]
    assert not stop.wait(60)  # and later ones


def test_only_the_first_reason_counts() -> None:
    stop = Stop()
    stop.ask("first")
    stop.ask("second")
    assert stop.reason == "first"


def test_a_signal_wakes_the_wait_of_the_main_thread() -> None:
    with on_signals() as watcher:
        timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        assert not watcher.stop.wait(60)
        assert time.monotonic() - began < 30
        timer.join()
    assert watcher.stop.reason == "SIGTERM"


def test_a_signal_during_a_wait_is_never_lost() -> None:
    """A wait on an event that its own handler sets deadlocks now and then; a queue loses some."""
    for _ in range(50):
        with on_signals() as watcher:
            signal.raise_signal(signal.SIGTERM)
            assert not watcher.stop.wait(60)


def test_the_same_signal_twice_within_a_moment_counts_once() -> None:
    """timeout(1), and a supervisor that signals the process and then its group, do that."""
    stop = Stop()
    watcher = Watcher(stop, Unattended())
    watcher._received(signal.SIGTERM)
    watcher._received(signal.SIGTERM)
    assert stop.reason == "SIGTERM"
    assert not stop.forced


def test_a_block_inside_another_shares_its_watcher() -> None:
    with on_signals() as outer:
        with on_signals() as inner:
            signal.raise_signal(signal.SIGINT)
            eventually(lambda: inner.stop.asked)
        assert outer.stop.reason == "SIGINT"


def test_a_wake_up_descriptor_of_other_code_is_restored() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        with on_signals():
            pass
        assert signal.set_wakeup_fd(before) == writer
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def test_no_descriptor_and_no_thread_is_left_behind() -> None:
    with on_signals():
        pass
    gc.collect()
    gc.disable()  # nothing here may need it
    try:
        before = len(list(Path("/dev/fd").iterdir()))
        for _ in range(20):
            with on_signals():
                pass
        assert len(list(Path("/dev/fd").iterdir())) == before
    finally:
        gc.enable()
    assert not [thread for thread in threading.enumerate() if "daemonkit" in thread.name]


# Progress


def on_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_beat_of_an_unknown_thread_counts_for_the_tick_that_runs() -> None:
    stop = Stop()
    stop.beat()
    with stop.timing(5, "report") as tick:
        tick.touched = 0.0
        assert not tick.has_beaten
        said: list[str] = []
        on_a_thread(lambda: said.append(stop.beat()))
        assert said == ["report"]
        assert (tick.touched, tick.has_beaten) == (stop.touched, True)


def test_a_beat_of_a_pool_thread_counts_only_for_the_job_that_submitted_its_work() -> None:
    stop, said = Stop(), []
    submitted, done = threading.Event(), threading.Event()
    seen: list[Tick] = []

    def stuck() -> None:
        with stop.timing(5, "stuck") as tick:
            seen.append(tick)
            submitted.set()
            done.wait()

    thread = threading.Thread(target=stuck)
    thread.start()
    submitted.wait()
    with Pool(1) as pool, stop.timing(5, "report") as tick:
        said.append(pool.submit(stop.beat).result())
        on_a_thread(lambda: said.append(stop.beat()))
    assert (said, tick.has_beaten, seen[0].has_beaten) == (["report", ""], True, True)
    with Pool(1) as pool, stop.timing(5, "report") as tick:
        seen[0].has_beaten = False
        said.append(pool.submit(stop.beat).result())
    done.set()
    thread.join()
    assert (said[-1], tick.has_beaten, seen[0].has_beaten) == ("report", True, False)
