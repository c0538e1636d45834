"""Several models in one server: found by name, loaded on demand, unloaded when idle or for room, and never lost."""
from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest
from fakes import PATIENCE, Reply, Server, hold, let_go, logged, model, runner, serving, until
from scripted import scripted

from zonda.errors import InvalidModel, InvalidRequest, OutOfMemory
from zonda.options import ServerOptions
from zonda.server.listen import serve
from zonda.server.served import Model, Served


class Loads:
    """Loads models when `gate` allows it, and counts; they are `held`, or `fault` is raised instead."""

    def __init__(self, name: str = "one") -> None:
        self.name = name
        self.count = 0
        self.fault: Exception | None = None
        self.held = False
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, progress: Callable[[str, int, int], None]) -> Any:
        self.count += 1
        until(lambda: self.gate.is_set() or progress("loading", 0, 1))
        if self.fault:
            raise self.fault
        llm = model(name=self.name, max_seqs=2)
        if self.held:
            hold(llm)
        return llm

    def described(self, **fields: Any) -> Model:
        return Model(name=self.name, load=self, **{"preload": False, **fields})


def later(call: Callable[[], Reply]) -> Future[Reply]:
    """The answer to come of a request."""
    pool = ThreadPoolExecutor(1)
    result = pool.submit(call)
    pool.shutdown(wait=False)
    return result


def status(server: Server, name: str = "one") -> str:
    return str(server.post("/v1/models/status", {"model_id": name}).json["status"])


def text(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    return str(reply.json["choices"][0]["text"])


def test_a_model_is_loaded_by_its_first_request_and_once() -> None:
    load = Loads()
    with serving([load.described()], access_log=False) as server:
        until(lambda: server.get("/health").status == 200)
        assert (status(server), load.count) == ("unloaded", 0)
        load.gate.clear()
        asked = [later(lambda: server.complete("x")) for _ in range(4)]
        until(lambda: load.count == 1 and server.service.registry.find("one").waiting == 4)
        assert status(server) == "loading"
        load.gate.set()
        assert [text(each.result(PATIENCE)) for each in asked] == ["yz"] * 4
        assert (status(server), load.count) == ("loaded", 1)


def test_models_are_found_by_name_and_alias_and_the_default_answers_for_none() -> None:
    one, two = Loads("org/one"), Loads("two")
    models = [one.described(aliases=("first", "uno")), two.described()]
    with serving(models, default="two", access_log=False) as server:
        names = [server.complete("x", model=name).json["model"] for name in ("org/one", "first", "uno", "two")]
        assert names == ["org/one", "org/one", "org/one", "two"]
        assert server.complete("x").json["model"] == server.complete("x", model="default").json["model"] == "two"
        assert server.complete("x", model="three").error["code"] == "model_not_found"
        assert server.get("/v1/models/first").json["id"] == "org/one"


@pytest.mark.parametrize(("name", "shown"), [
    ("three", "'three'"), ("It's <b>", '"It\'s <b>"'), ("x" * 100, f"'{'x' * 100}'"), ("x" * 5000, f"'{'x' * 100}…'")])
def test_an_unknown_model_is_repeated_and_those_that_there_are_named(name: str, shown: str) -> None:
    with serving([Loads("org/one").described(aliases=("uno",)), Loads("two").described()], access_log=False) as server:
        for reply in (server.complete("x", model=name), server.get(f"/v1/models/{quote(name)}")):
            assert (reply.status, reply.error["message"]) == (
                404, f"there is no model {shown} (served: org/one, uno, two)")


def test_cards_tell_what_is_known_of_models_loaded_or_not() -> None:
    load = Loads()
    with serving([load.described(aliases=("a",)), Loads("two").described()], access_log=False) as server:
        server.complete("x", model="a")
        one, two = server.get("/v1/models").json["data"]
    assert (one["id"], one["aliases"], one["status"], one["owned_by"]) == ("one", ["a"], "loaded", "local")
    assert (one["max_model_len"], one["capabilities"]) == (2000, ["completion", "chat"]) and one["created"]
    assert (two["status"], two["max_model_len"], two["capabilities"]) == ("unloaded", None, None)


@pytest.mark.parametrize(("dialect", "reasoning", "reasons"), [
    ("hermes", "think", True), ("hermes", "none", False), ("harmony", "none", True)])
def test_models_that_reason_are_told_apart(dialect: str, reasoning: str, reasons: bool) -> None:
    llm = scripted(dialect=dialect, reasoning=reasoning)
    with closing(llm.engine):
        assert ("reasoning" in llm.capabilities) is reasons


def test_who_will_not_wait_for_a_load_is_told_when_to_come_back() -> None:
    load = Loads()
    load.gate.clear()
    with serving([load.described()], load_wait=0.05, access_log=False) as server:
        reply = server.complete("x")
        assert (reply.status, reply.error["code"]) == (503, "model_loading") and int(reply.headers["retry-after"]) > 0
        load.gate.set()
        until(lambda: status(server) == "loaded")
        assert text(server.complete("x")) == "yz" and load.count == 1


def test_an_idle_model_is_unloaded_and_comes_back() -> None:
    load = Loads()
    with serving([load.described()], idle_unload=0.05, access_log=False) as server:
        assert text(server.complete("x")) == "yz"
        until(lambda: status(server) == "unloaded")
        assert server.get("/health").json == {"status": "ok", "models": {"one": "unloaded"}}
        assert text(server.complete("x")) == "yz" and load.count == 2


def test_a_model_in_use_or_kept_is_not_idle() -> None:
    load, kept = Loads(), Loads("kept")
    load.held = True
    with serving([load.described(preload=True), kept.described(preload=True, keep=True)], idle_unload=0.05,
                 access_log=False) as server:
        until(lambda: "kept" in server.llms)
        asked = later(lambda: server.complete("x", model="one"))
        until(lambda: server.service.flights and "one" in server.llms)
        unloaded = threading.Event()
        assert not unloaded.wait(1.2)
        assert [status(server, name) for name in ("one", "kept")] == ["loaded", "loaded"]
        let_go(server.llms["one"])
        assert text(asked.result(PATIENCE)) == "yz"
        until(lambda: status(server) == "unloaded")


def test_unloading_lets_running_requests_finish_and_new_ones_wait() -> None:
    load = Loads()
    with serving([load.described(preload=True)], access_log=False) as server:
        until(lambda: server.llms)
        llm = server.llms["one"]
        gate = hold(llm)
        running = later(lambda: server.complete("x", stream=True))
        until(lambda: server.service.flights)
        unloading = later(lambda: server.post("/v1/models/unload", {"model": "one"}))
        until(lambda: status(server) == "unloading")
        new = later(lambda: server.complete("x"))
        until(lambda: server.service.registry.find("one").waiting == 1)
        assert not running.done() and not unloading.done()
        gate.release(1000)
        assert running.result(PATIENCE).events[-1] == "[DONE]"
        assert unloading.result(PATIENCE).status == 200 and text(new.result(PATIENCE)) == "yz"
        assert load.count == 2 and not llm.engine.alive


def test_unloading_ends_what_does_not_finish_in_time() -> None:
    load = Loads()
    with serving([load.described(preload=True)], drain_timeout=0.1, access_log=False) as server:
        until(lambda: server.llms)
        llm = server.llms["one"]
        hold(llm)
        running = later(lambda: server.complete("x"))
        until(lambda: server.service.flights)
        unloading = later(lambda: server.post("/v1/models/unload", {"model": "one"}))
        assert running.result(PATIENCE).error["code"] == "unavailable"
        let_go(llm)
        assert unloading.result(PATIENCE).json == {"model_id": "one", "status": "unloaded", "error": None}


def test_models_are_loaded_and_unloaded_by_request() -> None:
    load = Loads()
    with serving([load.described()], access_log=False) as server:
        for path, word in (("load", "loaded"), ("status", "loaded"), ("load", "loaded"), ("unload", "unloaded"),
                           ("status", "unloaded"), ("unload", "unloaded"), ("reload", "loaded")):
            reply = server.post(f"/v1/models/{path}", {"model_id": "one"})
            assert (reply.status, reply.json) == (200, {"model_id": "one", "status": word, "error": None})
    assert load.count == 2


def test_what_cannot_be_loaded_or_is_not_known_is_said_in_the_models_words() -> None:
    with serving(model(), access_log=False) as server:
        for path, name, code, word in (("load", "nothing", 404, "not_found"), ("status", "/etc/x", 404, "not_found"),
                                       ("unload", "chain", 400, "no_loader_config"), ("load", "chain", 200, "loaded")):
            reply = server.post(f"/v1/models/{path}", {"model_id": name})
            assert (reply.status, reply.json["status"]) == (code, word)
            assert bool(reply.json["error"]) is (code != 200)
        assert server.post("/v1/models/load", {}).error["param"] == "model_id"
        assert text(server.complete("x")) == "yz"


def test_of_a_load_that_fails_nothing_stays_in_memory() -> None:
    loaded: list[weakref.ref[Any]] = []

    def read() -> None:
        weights = type("Weights", (), {})()
        loaded.append(weakref.ref(weights))
        raise RuntimeError("CUDA error: out of memory")

    def load(progress: object) -> Any:
        try:
            read()
        except RuntimeError as error:
            raise OutOfMemory("no memory is left for the model") from error

    served = Served(Model(name="one", load=load))
    with pytest.raises(OutOfMemory):
        asyncio.run(served.load())
    assert served.error and loaded and not loaded[0]()


def test_a_load_can_be_given_up() -> None:
    load = Loads()
    load.gate.clear()
    with serving([load.described()], access_log=False) as server:
        asked = later(lambda: server.complete("x"))
        until(lambda: load.count == 1)
        assert server.post("/v1/models/unload", {"model_id": "one"}).json["status"] == "unloaded"
        assert (asked.result(PATIENCE).status, asked.result().error["code"]) == (503, "unavailable")
        load.gate.set()
        assert text(server.complete("x")) == "yz"


def test_a_client_that_leaves_does_not_end_the_load_for_others() -> None:
    load = Loads()
    load.gate.clear()
    with serving([load.described()], access_log=False) as server:
        sock = server.open("/v1/completions", {"prompt": "x"})
        until(lambda: load.count == 1)
        other = later(lambda: server.complete("x"))
        until(lambda: server.service.registry.find("one").waiting == 2)
        sock.close()
        until(lambda: len(server.service.calls) == 1)
        load.gate.set()
        assert text(other.result(PATIENCE)) == "yz" and load.count == 1


def test_a_model_that_does_not_fit_is_an_error_and_the_others_go_on() -> None:
    big, small = Loads("big"), Loads("small")
    big.fault = OutOfMemory("the weights take 900 MB, but 500 MB are free", hint="choose a smaller file")
    with serving([small.described(preload=True, keep=True), big.described(preload=True)], access_log=False) as server:
        until(lambda: status(server, "big") == "failed")
        reply = server.complete("x", model="big")
        assert (reply.status, reply.error["code"]) == (503, "out_of_memory") and reply.headers["retry-after"]
        assert "900 MB, but 500 MB" in reply.error["message"] and "smaller file" in reply.error["message"]
        told = server.post("/v1/models/load", {"model_id": "big"})
        assert (told.status, told.json["status"], told.json["error"]["code"]) == (503, "failed", "out_of_memory")
        assert text(server.complete("x", model="small")) == "yz" and server.get("/health").status == 200


def test_the_idle_model_that_was_used_longest_ago_makes_room() -> None:
    loads = [Loads(name) for name in ("one", "two", "three")]

    def crowded(progress: Any) -> Any:
        if len(server.llms) >= 2:
            raise OutOfMemory("no room")
        return loads[2](progress)

    models = [loads[0].described(), loads[1].described(), Model(name="three", load=crowded, preload=False)]
    with serving(models, access_log=False) as server:
        for name in ("one", "two", "one", "three"):
            assert text(server.complete("x", model=name)) == "yz"
        assert [status(server, name) for name in ("one", "two", "three")] == ["loaded", "unloaded", "loaded"]


def test_a_damaged_model_is_a_failure_inside_and_its_file_is_not_named() -> None:
    load = Loads()
    load.fault = InvalidModel("/secret/file.gguf: bad magic")
    with serving([load.described()], access_log=False) as server:
        for reply in (server.complete("x"), server.post("/v1/models/load", {"model_id": "one"})):
            assert reply.status == 500 and b"secret" not in reply.body
        assert (server.get("/health").status, status(server)) == (503, "failed")
        load.fault = None
        assert text(server.complete("x")) == "yz" and server.get("/health").status == 200


def test_a_dead_engine_is_started_again() -> None:
    load = Loads()
    with logged("zonda.server") as lines, serving([load.described(preload=True)], access_log=False) as server:
        until(lambda: server.llms)
        first = server.llms["one"]
        gate = hold(first)
        running = later(lambda: server.complete("x", stream=True))
        until(lambda: server.service.flights)
        runner(first).fault = ValueError("/secret")
        gate.release(1000)
        assert running.result(PATIENCE).events[-1]["error"]["type"] == "server_error"
        first.engine.close()
        until(lambda: server.llms.get("one") not in (None, first) and server.get("/health").status == 200)
        assert text(server.complete("x")) == "yz" and load.count == 2
    assert any("loaded again" in line for line in lines)


def test_requests_by_the_hundred_survive_loading_and_unloading() -> None:
    load = Loads()
    with serving([load.described()], access_log=False) as server, ThreadPoolExecutor(8) as pool:
        asked: list[Future[Reply]] = []
        while len(asked) < 150 or load.count < 3:
            asked += [pool.submit(lambda: server.complete("x")) for _ in range(10)]
            server.post("/v1/models/unload", {"model_id": "one"})
        assert {text(each.result()) for each in asked} == {"yz"}


def test_a_server_that_could_load_nothing_ends_with_the_reason() -> None:
    loads = [Loads("one"), Loads("two")]
    for each in loads:
        each.fault = InvalidModel(f"{each.name} is broken")
    with pytest.raises(InvalidModel, match="one is broken"):
        serve([each.described(preload=True) for each in loads], ServerOptions(port=0))


def test_names_must_differ_and_the_default_must_be_one_of_them() -> None:
    with pytest.raises(InvalidRequest, match="two models have the name 'one'"):
        serve([Loads().described(), Loads("two").described(aliases=("one",))], ServerOptions(port=0))
    with pytest.raises(InvalidRequest, match="default_model_id"):
        serve([Loads().described()], ServerOptions(port=0), default="two")


def test_metrics_tell_which_models_are_there() -> None:
    with serving([Loads().described(), Loads("two").described()], access_log=False) as server:
        server.complete("x", model="two")
        page = server.get("/metrics").body.decode()
    assert 'zonda_model_loaded{model="one"} 0.0' in page and 'zonda_model_loaded{model="two"} 1.0' in page
    assert 'zonda_requests_pending_admission{model="two"} 0.0' in page
