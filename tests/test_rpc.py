"""The sample shop's Thrift service as a process, and the examples of docs/rpc.md: real clients."""

from __future__ import annotations

import contextlib
import json
import random
import re
import smtplib
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias
from wsgiref.util import setup_testing_defaults

import django.db
import pytest
from config.wsgi import application
from django.core.management import call_command
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport import TTransportException

from daemonkit import fresh_connections, release_connections
from lab.processes import ROOT, Daemon, child_environment, manage_command
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.processes import Manage
from tests.kit.projects import Project
from tests.rpc.shop import DATABASE, Shop, connected, idl, port_of

CLIENTS = 4
PATIENT = 30.0
"""Seconds to wait for what takes a moment on a machine that is not busy."""
on_mariadb_only = pytest.mark.parametrize("server", ["mariadb"], indirect=True)
"""For what a second database would not show."""

SKU = "YUAN-00020"  # the clients of tests/rpc/hammer.py take the first of YUAN's for their own


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Server], Shop]]:
    """The shop's tables on each server, made when the first test asks for them."""
    opened: dict[Server, Shop] = {}

    def shop_on(server: Server) -> Shop:
        if server not in opened:
            opened[server] = Shop(server, tmp_path_factory.mktemp("shop"))
            opened[server].open()
        return opened[server]

    yield shop_on
    for shop in opened.values():
        shop.close()


@pytest.fixture
def shop(server: Server, shops: Callable[[Server], Shop]) -> Shop:
    return shops(server)


COMMAND = ("run_daemon", "price_service", "--port", "0")


@pytest.fixture
def serve(shop: Shop, manage: Manage) -> Callable[..., Daemon]:
    """``serve(max_age="none")``: the service, as a process that listens on any free port."""

    def start(*arguments: str, max_age: str = "none") -> Daemon:
        env = {"DATABASE_URL": shop.url, "CONN_MAX_AGE": max_age}
        return manage(*COMMAND, *arguments, env=env)

    return start


@pytest.fixture(scope="module")
def services(shops: Callable[[Server], Shop]) -> Iterator[Callable[[Server], Daemon]]:
    """One service for each server, which lives through all that the tests do to its database."""
    started: dict[Server, Daemon] = {}

    def service_on(server: Server) -> Daemon:
        if server not in started:
            env = {"DATABASE_URL": shops(server).url, "CONN_MAX_AGE": "none"}
            started[server] = Daemon(manage_command(*COMMAND), env=env)
        return started[server]

    yield service_on
    codes = [service.stop() for service in started.values() if service.is_running]
    for service in started.values():
        service.end()
    assert codes == [0] * len(started)


@pytest.fixture
def service(shop: Shop, services: Callable[[Server], Daemon]) -> Iterator[Daemon]:
    """A service that the test does not end."""
    yield services(shop.server)
    assert services(shop.server).is_running


@pytest.fixture
def hammer(shop: Shop) -> Iterator[Callable[..., list[Daemon]]]:
    """``hammer(port, seconds)``: client processes that are connected."""
    started: list[Daemon] = []

    def start(port: int, seconds: float) -> list[Daemon]:
        for number in range(CLIENTS):
            arguments = [str(port), str(shop.file), "--number", str(number), "--seconds"]
            command = [sys.executable, "-m", "tests.rpc.hammer", *arguments, str(seconds)]
            started.append(Daemon(command, cwd=ROOT))
        for client in started:
            client.wait_for("connected", 20)
        return started

    yield start
    for client in started:
        client.end()


Serve: TypeAlias = Callable[..., Daemon]
Hammer: TypeAlias = Callable[[int, float], list[Daemon]]


@contextlib.contextmanager
def several_connected(port: int) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(port)) for _ in range(CLIENTS)]


@contextlib.contextmanager
def aside(call: Callable[..., Any], *arguments: Any) -> Iterator[Future[Any]]:
    """A call in another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call, *arguments)


def stuck(shop: Shop, holder: int, call: Future[Any]) -> list[int]:
    """Wait until a call waits for a lock. Returns its session; raises what the call raises."""
    return eventually(
        lambda: shop.stuck(but=holder) or (call.done() and call.result()), PATIENT, "it waits"
    )


def all_are_right(clients: list[Any], shop: Shop) -> None:
    for client, (sku, amount) in zip(clients, shop.prices.items(), strict=False):
        assert client.get_price(sku).amount == amount


def report(client: Daemon) -> dict[str, Any]:
    assert client.wait(30) == 0, client.output
    found: dict[str, Any] = json.loads(client.stdout.splitlines()[-1])
    return found


# Between calls


@pytest.mark.parametrize("max_age", ["0", "300"])  # the other tests have "none"
def test_a_session_that_is_killed_between_calls_costs_none(
    serve: Serve, shop: Shop, max_age: str
) -> None:
    service = serve(max_age=max_age)
    # The main thread's session, which looked for migrations, is kept until it is killed.
    kept = {0} if max_age == "0" else {CLIENTS, CLIENTS + 1}
    with several_connected(port_of(service)) as clients:
        for pause in (0, 0, 0.6):  # the last is longer than a connection is trusted without asking
            all_are_right(clients, shop)
            eventually(lambda: len(shop.server.sessions()) in kept)
            shop.server.kill_sessions()
            time.sleep(pause)
        all_are_right(clients, shop)
    assert service.stop() == 0
    assert "Unavailable" not in service.output


def test_an_idle_timeout_between_calls_costs_none(service: Daemon, shop: Shop) -> None:
    shop.server.set_idle_timeout(1)
    with several_connected(port_of(service)) as clients:
        for _ in range(2):
            all_are_right(clients, shop)
            eventually(lambda: not shop.server.sessions(), what="the server has hung up")
        all_are_right(clients, shop)


def test_a_server_that_is_killed_and_comes_back_between_calls_costs_none(
    service: Daemon, shop: Shop
) -> None:
    with several_connected(port_of(service)) as clients:
        all_are_right(clients, shop)
        shop.server.kill()
        shop.server.start()
        all_are_right(clients, shop)


def test_calls_fail_with_a_clear_error_while_the_database_is_away(
    service: Daemon, shop: Shop
) -> None:
    with connected(port_of(service)) as client:
        shop.server.stop()
        for _ in range(2):
            with pytest.raises(idl.Unavailable, match="the database gave no answer"):
                client.get_price(SKU)
        shop.server.start()
        all_are_right([client], shop)


def test_a_session_ends_with_its_client(service: Daemon, shop: Shop) -> None:
    with several_connected(port_of(service)) as clients:
        all_are_right(clients, shop)
        assert len(shop.server.sessions()) == CLIENTS
    eventually(lambda: not shop.server.sessions())
    assert service.is_running


def test_the_rest_view_beside_it_says_the_same(
    service: Daemon, shop: Shop, alias: MakeAlias, settings: Any
) -> None:
    use(alias(shop.server, name="rest"), shop, settings)
    with connected(port_of(service)) as client:
        for amount in ("12.50", "8.00", "3.99"):
            client.set_price(SKU, amount)
            shop.server.kill_sessions()
            seen = rest(f"/prices/{SKU}/")
            changes = [change["amount"] for change in seen.pop("history")]
            assert changes[0] == amount
            price = client.get_price(SKU)
            assert vars(price) | {"since": None} == seen | {"since": None}
        names = [price["sku"] for price in rest("/prices/?supplier=NORD")["prices"]]
        assert names == [price.sku for price in client.prices_of("NORD", "")]
        assert names[7:] == [price.sku for price in client.prices_of("NORD", names[6])]


def rest(path: str) -> Any:
    """What a web server does: call the site's WSGI application, and close what it returns."""
    environ: dict[str, Any] = {"PATH_INFO": path.partition("?")[0]}
    environ["QUERY_STRING"] = path.partition("?")[2]
    setup_testing_defaults(environ)
    response = application(environ, lambda status, headers: None)
    try:
        return json.loads(b"".join(response))
    finally:
        response.close()


# In flight


def test_a_call_whose_session_is_killed_fails_with_the_services_own_exception(
    service: Daemon, shop: Shop
) -> None:
    with connected(port_of(service)) as client, shop.locked(SKU) as holder:
        before = client.get_price(SKU).amount
        with aside(client.set_price, SKU, "77.00") as call:
            (session,) = stuck(shop, holder, call)
            shop.server.kill_session(session)
            with pytest.raises(idl.Unavailable) as caught:
                call.result(10)
            assert caught.value.message == "the database gave no answer"
        assert client.get_price(SKU).amount == before
    service.wait_for("set_price failed in the database")
    service.wait_for("connection 'default' dropped")


def test_a_call_whose_server_is_killed_fails_with_the_services_own_exception(
    service: Daemon, shop: Shop
) -> None:
    with connected(port_of(service)) as client, shop.locked(SKU) as holder:
        before = client.get_price(SKU).amount
        with aside(client.set_price, SKU, "78.00") as call:
            stuck(shop, holder, call)
            shop.server.kill()
            with pytest.raises(idl.Unavailable):
                call.result(10)
        shop.server.start()
        assert client.get_price(SKU).amount == before
        assert client.set_price(SKU, "78.00").old_amount == before


def test_under_kills_every_answer_is_right_or_the_services_own_exception(
    service: Daemon, hammer: Hammer, shop: Shop
) -> None:
    clients = hammer(port_of(service), 4)
    when = random.Random(4)
    while any(client.is_running for client in clients):
        for row in shop.server.session_rows():
            if when.random() < 0.5:
                shop.server.kill_session(row.id)
        time.sleep(when.random() * 0.1)
    for seen in map(report, clients):
        assert seen["wrong"] == []
        assert seen["hung_up"] is None
        assert seen["right"] > 20
        assert seen["slowest"] < 5
    eventually(lambda: not shop.server.sessions())


# Told to stop


def test_sigterm_lets_the_call_in_flight_be_answered(serve: Serve, shop: Shop) -> None:
    service = serve()
    port = port_of(service)
    with connected(port) as client, connected(port) as idle, contextlib.ExitStack() as unlocked:
        holder = unlocked.enter_context(shop.locked(SKU))
        idle.get_price(SKU)
        with aside(client.set_price, SKU, "55.00") as call:
            stuck(shop, holder, call)
            service.signal(15)
            service.wait_for("stops: SIGTERM")
            eventually(lambda: not lets_in(port), what="no client is let in")
            eventually(lambda: is_hung_up_on(idle))
            assert not call.done()
            unlocked.close()
            assert call.result(10).amount == "55.00"
    assert service.wait() == 0
    eventually(lambda: not shop.server.sessions())


def lets_in(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def is_hung_up_on(client: Any) -> bool:
    try:
        client.get_price(SKU)
    except (TTransportException, ConnectionError):
        return True
    return False


@on_mariadb_only
def test_sigterm_under_load_ends_it_between_two_calls_of_each_client(
    serve: Serve, hammer: Hammer, shop: Shop
) -> None:
    service = serve()
    clients = hammer(port_of(service), 20)
    time.sleep(0.3)
    assert service.stop(within=5) == 0
    seen = [report(client) for client in clients]
    assert [each["wrong"] for each in seen] == [[]] * CLIENTS
    assert all(each["hung_up"] and not each["unavailable"] for each in seen)
    eventually(lambda: not shop.server.sessions())
    with connected(port_of(serve())) as client:
        for each in seen:
            assert client.get_price(each["own"]).amount in each["possible"]


@on_mariadb_only
def test_a_call_that_does_not_end_holds_it_up_for_stop_timeout_only(
    serve: Serve, shop: Shop
) -> None:
    service = serve("--stop-timeout", "500ms")
    with connected(port_of(service)) as client, shop.locked(SKU) as holder:
        with aside(client.set_price, SKU, "66.00") as call:
            stuck(shop, holder, call)
            assert service.stop(within=6) == 70
            with pytest.raises((TTransportException, ConnectionError)):
                call.result(5)


def test_through_reloads_every_call_is_answered(serve: Serve, shop: Shop) -> None:
    service = serve()
    port = port_of(service)
    faults: list[str] = []
    calls = [0] * CLIENTS
    ends = threading.Event()

    def call(number: int) -> None:
        while not ends.is_set():
            try:
                with connected(port) as client:
                    client.get_price(SKU)
                calls[number] += 1
            except Exception as error:
                faults.append(repr(error))

    with ThreadPoolExecutor(CLIENTS) as pool:
        try:
            for number in range(CLIENTS):
                pool.submit(call, number)
            for reloads in range(1, 6):
                eventually(lambda: min(calls) > 0, PATIENT)
                calls[:] = [0] * CLIENTS
                service.signal(1)
                service.wait_for("listening on", 20, count=reloads + 1)
            eventually(lambda: min(calls) > 0, PATIENT)
        finally:
            ends.set()
    assert faults == []
    assert service.stop() == 0


# What clients, operators and programmers get wrong


@on_mariadb_only
def test_a_client_that_does_not_speak_thrift_is_hung_up_on(serve: Serve, shop: Shop) -> None:
    service = serve()
    port = port_of(service)
    with connected(port) as client, contextlib.ExitStack() as stack:
        # Of another protocol; with a name of 2 GB; one that stops in the middle; one that is shy.
        for words in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"\x80\x01\x00\x01\x7f\xff\xff\xff",
            b"\x80\x01",
            b"",
        ):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            stranger.sendall(words)
        service.wait_for("does not speak our Thrift", count=2)
        all_are_right([client], shop)
        assert service.stop(within=5) == 0


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("get_price", ["ACME-1"], "NotFound", "nothing with the SKU ACME-1 has a price"),
        ("get_price", [None], "NotFound", "nothing with the SKU None has a price"),
        ("prices_of", ["NOBODY", ""], "NotFound", "there is no supplier NOBODY"),
        ("set_price", ["ACME-1", "5.00"], "NotFound", "there is nothing with the SKU ACME-1"),
        ("set_price", [SKU, "1,5"], "InvalidAmount", "'1,5' is no price such as 12.50"),
        ("set_price", [SKU, None], "InvalidAmount", "'' is no price such as 12.50"),
    ],
)
@pytest.mark.django_db
def test_a_call_that_cannot_be_answered_is_told_why(
    name: str, arguments: list[Any], error: str, message: str
) -> None:
    from shop.rpc import PriceProcessor
    from shop.rpc import idl as same

    processor = PriceProcessor()
    with pytest.raises(getattr(same, error)) as caught:
        processor.answer(name, lambda: getattr(processor._handler, name)(*arguments))
    assert caught.value.message == message


def test_a_bug_is_no_drivers_traceback_either() -> None:
    from shop.rpc import PriceProcessor

    with pytest.raises(TApplicationException, match=r"^a bug$"):
        PriceProcessor().answer("get_price", lambda: 1 / 0)


def test_without_thriftpy2_the_service_says_what_to_install(manage: Manage, tmp_path: Any) -> None:
    (tmp_path / "thriftpy2.py").write_text("raise ImportError")
    service = manage("run_daemon", "price_service", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert service.wait(20) == 78
    assert "price_service needs a package: pip install thriftpy2" in service.stderr
    assert "Traceback" not in service.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--port", "99999"], 2, "price_service: listen() takes"),
        (["--host", "nowhere.invalid"], 1, "price_service cannot listen on nowhere.invalid:9090"),
        (["--port", "taken"], 1, "Address already in use; stop what listens there"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_sentence(
    manage: Manage, arguments: list[str], code: int, sentence: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        arguments = [argument.replace("taken", taken) for argument in arguments]
        service = manage("run_daemon", "price_service", *arguments)
        assert service.wait(20) == code
    assert sentence in service.stderr
    assert "Traceback" not in service.stderr


@pytest.mark.django_db
def test_the_migrations_are_complete() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


# The examples of docs/rpc.md


def example(name: str) -> str:
    page = (ROOT / "docs" / "rpc.md").read_text()
    (found,) = re.findall(rf"^```python\n# {re.escape(name)}\n(.*?)^```", page, re.M | re.S)
    return str(found)


def run_example(name: str) -> types.SimpleNamespace:
    names: dict[str, Any] = {"__name__": name}
    exec(compile(example(name), name, "exec"), names)
    return types.SimpleNamespace(**names)


class To:
    """A database router that sends all queries to one alias."""

    def __init__(self, name: str) -> None:
        self.db_for_read = self.db_for_write = lambda *_, **__: name


def use(name: str, shop: Shop, settings: Any) -> None:
    django.db.connections.settings[name]["NAME"] = DATABASE
    settings.DATABASE_ROUTERS = [To(name)]


@pytest.fixture
def here(shop: Shop, alias: MakeAlias, settings: Any) -> Shop:
    """The shop's models in this process are on the server, by connections that are kept."""
    use(alias(shop.server, name="kept", CONN_MAX_AGE=None), shop, settings)
    return shop


def lives_through_kills(shop: Shop, get_price: Callable[[str], str]) -> None:
    (sku, amount), *_ = shop.prices.items()
    for _ in range(3):
        assert get_price(sku) == amount
        assert len(shop.server.sessions()) == 1
        shop.server.kill_sessions()
    assert get_price(sku) == amount


@contextlib.contextmanager
def serving(server: Any) -> Iterator[tuple[str, int]]:
    """Run a server of ``socketserver`` in a thread, which leaves no session behind."""

    def serve() -> None:
        server.serve_forever(poll_interval=0.01)
        release_connections()

    thread = threading.Thread(target=serve)
    with server:
        thread.start()
        try:
            yield server.server_address
        finally:
            server.shutdown()
            thread.join()


def test_the_thrift_example_is_the_sample_sites() -> None:
    name = "sample_site/shop/rpc.py"
    assert example(name) in (ROOT / name).read_text()


def test_the_example_for_grpc(here: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    # Or gRPC would start threads of its own in each child that this process forks, and hang there.
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "false")
    import grpc

    from tests.rpc import generated

    for module in (generated.prices_pb2, generated.prices_pb2_grpc):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    made = run_example("grpc_service.py")
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        generated.add_PricesServicer_to_server(made.Prices(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = generated.PricesStub(channel)

            def get_price(sku: str) -> str:
                return str(stub.GetPrice(generated.Message(sku=sku), timeout=10).amount)

            lives_through_kills(here, get_price)
            here.server.kill_sessions()
            rows = stub.ListPrices(generated.Message(supplier="ACME"), timeout=10)
            assert {row.sku: row.amount for row in rows}.items() <= here.prices.items()
            with pytest.raises(grpc.RpcError) as caught:
                get_price("nothing")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            here.server.stop()
            with pytest.raises(grpc.RpcError) as caught:
                get_price(SKU)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert caught.value.details() == "the database gave no answer"
            here.server.start()
            get_price(SKU)
        pool.submit(release_connections).result(10)
        server.stop(None).wait(10)


def test_a_stream_that_is_a_generator_is_refused() -> None:
    with pytest.raises(TypeError, match="generator"):

        @fresh_connections
        class Prices:
            def ListPrices(self, request: Any, context: Any) -> Iterator[Any]:
                yield request


EXAMPLES = {
    "line_service.py": 9091,
    "asyncio_service.py": 9092,
    "thriftpy2_service.py": 9093,
    "uvicorn_service.py": 9096,
    "smtp_service.py": 9097,
}
"""The servers of docs/rpc.md, and the port of each."""


NEEDS = {"thriftpy2_service.py": "thriftpy2", "uvicorn_service.py": "uvicorn",
         "smtp_service.py": "aiosmtpd"}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_of_a_server_lives_through_kills_and_a_reload_and_stops(
    shop: Shop, project: Project, name: str
) -> None:
    pytest.importorskip(NEEDS.get(name, "socket"))
    port = free_port()
    source = example(name).replace(f"127.0.0.1:{EXAMPLES[name]}", f"127.0.0.1:{port}")
    project.command(name.removesuffix(".py"), source)
    # Around a web request it is Django that looks after connections.
    max_age = "0" if name == "uvicorn_service.py" else "none"
    command = name.removesuffix(".py")
    daemon = project.manage("run_daemon", command, DATABASE_URL=shop.url, CONN_MAX_AGE=max_age)
    (sku, amount), *_ = shop.prices.items()
    ask = ASK.get(name, ask_by_line)
    if name == "smtp_service.py":
        amount = f"OK, {len(shop.prices)} prices are known"
    eventually(lambda: lets_in(port), 20)
    for _ in range(3):
        assert ask(port, sku) == amount
        shop.server.kill_sessions()
    pid = daemon.pid
    daemon.signal(1)
    daemon.wait_for("reloads: SIGHUP", 20)
    assert ask(port, sku) == amount  # it waits in the backlog, if need be
    assert daemon.pid == pid
    daemon.wait_for(" started: ", 20, count=2)
    assert daemon.stop(within=15) == 0
    assert "Traceback" not in daemon.output


GENERATED = {
    "prices_pb2.py": "from tests.rpc.generated import Message as Price",
    "prices_pb2_grpc.py": "from tests.rpc.generated import *",
}


@pytest.mark.parametrize(
    ("name", "documented"), [("grpc_daemon.py", 9094), ("grpc_aio_daemon.py", 9095)]
)
def test_the_servers_of_grpc_live_through_kills_and_a_reload_and_stop(
    shop: Shop,
    project: Project,
    name: str,
    documented: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "false")
    import grpc

    from tests.rpc import generated

    port = free_port()
    for module, source in GENERATED.items():
        project.module(module, source)
    project.module("grpc_service.py", example("grpc_service.py"))
    source = example(name).replace(f"127.0.0.1:{documented}", f"127.0.0.1:{port}")
    project.command(name.removesuffix(".py"), source)
    daemon = project.manage(
        "run_daemon", name.removesuffix(".py"), DATABASE_URL=shop.url, CONN_MAX_AGE="none"
    )
    (sku, amount), *_ = shop.prices.items()
    for round in range(2):
        eventually(lambda: lets_in(port), 20)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = generated.PricesStub(channel)
            for _ in range(2):
                answer = stub.GetPrice(generated.Message(sku=sku), timeout=20, wait_for_ready=True)
                assert answer.amount == amount
                shop.server.kill_sessions()
        if round == 0:
            daemon.signal(1)
            daemon.wait_for(" started: ", 20, count=2)
    assert daemon.stop(within=15) == 0
    assert "Traceback" not in daemon.output


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def ask_by_http(port: int, sku: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/prices/{sku}/", timeout=20) as answer:
        return str(json.load(answer)["amount"])


def ask_by_smtp(port: int, sku: str) -> str:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo()
        client.mail("a@example.org")
        client.rcpt("b@example.org")
        return client.data(b"hello")[1].decode()


def ask_by_line(port: int, sku: str) -> str:
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(f"{sku}\n".encode())
        return client.makefile().readline().strip()


def ask_by_thrift(port: int, sku: str) -> str:
    with connected(port) as client:
        return str(client.get_price(sku).amount)


ASK: dict[str, Callable[[int, str], str]] = {
    "thriftpy2_service.py": ask_by_thrift,
    "uvicorn_service.py": ask_by_http,
    "smtp_service.py": ask_by_smtp,
}


def test_the_example_for_a_framework_with_signals(here: Shop) -> None:
    made = run_example("xmlrpc_service.py")
    with serving(made.server) as (host, port):
        with xmlrpc.client.ServerProxy(f"http://{host}:{port}") as client:
            lives_through_kills(here, lambda sku: str(client.get_price(sku)))
            with pytest.raises(xmlrpc.client.Fault):
                client.get_price("nothing")
            lives_through_kills(here, lambda sku: str(client.get_price(sku)))


# And the price of it


def test_a_quick_run_of_its_benchmark_prints_every_row() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rpc", "--quick"],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"CONN_MAX_AGE=(?:None|0) ", done.stdout)) == 6, done.stdout
