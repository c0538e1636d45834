"""The web UI as a person meets it: in headless Chromium, against scripted answers and against a real server."""
from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import Browser, Pages
from fakes import model, serving, until
from ui_server import Scripted, scripted

from zonda.errors import Closed, InvalidRequest, Overloaded


@pytest.fixture
def server(script: Scripted) -> Scripted:
    """Each test writes its own scripts."""
    return script


def test_a_real_server_answers(pages: Pages) -> None:
    with serving(model()) as real:
        page = pages(real.url)
        page.ask("Say x")
        page.sees("yz", ".answer")
        page.sees("tokens/s", ".stats")
        assert page.js("document.querySelector('.models select').value") == "chain"


def test_reasoning_is_shown_apart_and_folded_away_after(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.scripts = [[{"reasoning_content": "First, "}, {"reasoning_content": "think."}, go, "Done."]]
    page = pages()
    page.ask("Think")
    page.sees("First, think.", ".thought")
    assert page.text(".thought button") == "Thinking"
    go.set()
    page.sees("Done.", ".prose")
    page.until("document.querySelector('.thought button').ariaExpanded === 'false'")
    assert page.text(".thought").startswith("Thought")
    page.click(".thought button")
    page.sees("First, think.", ".thought")


def test_tool_calls_are_shown_and_their_results_sent_back(pages: Pages, server: Scripted) -> None:
    begin = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"city": ', '"Mendoza"}')]
    server.scripts = [[{"tool_calls": [each]} for each in (begin, *rest)], ["Warm and dry."]]
    page = pages()
    page.ask("Weather?")
    page.sees('"city": "Mendoza"', ".call")
    page.type("31 °C", "textarea[name=result]")
    page.label("Send result")
    page.sees("Warm and dry.")
    said = server.asked[1]["messages"]
    whole = {"name": "weather", "arguments": '{"city": "Mendoza"}'}
    assert said[1]["tool_calls"] == [{"id": "c1", "type": "function", "function": whole}]
    assert said[2] == {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "31 °C"}


def test_stop_ends_the_answer_and_the_request(pages: Pages, server: Scripted) -> None:
    server.scripts = [["One two", threading.Event()], ["Again."]]
    page = pages()
    page.ask("Count")
    page.sees("One two")
    page.press("Escape")
    page.sees("stopped", ".stats")
    page.until("document.querySelector('button.send').ariaLabel === 'Send'")
    until(lambda: not server.service.flights)
    page.ask("Go on")
    page.sees("Again.")
    assert [each["content"] for each in server.asked[1]["messages"]] == ["Count", "One two", "Go on"]


def test_editing_makes_a_branch_and_leaves_the_old_one(pages: Pages, server: Scripted) -> None:
    server.scripts = [["About cats."], ["About dogs."]]
    page = pages()
    page.ask("Cats")
    page.sees("About cats.")
    page.label("Edit message")
    page.until("document.activeElement.ariaLabel === 'Edit your message'")
    page.fill("[aria-label='Edit your message']", "Dogs")
    page.press("Enter")
    page.sees("About dogs.")
    assert page.text(".question .branches") == "2 / 2"
    assert server.asked[1]["messages"] == [{"role": "user", "content": "Dogs"}]
    page.label("Previous version")
    page.sees("About cats.")
    assert page.text(".said") == "Cats" and page.text(".question .branches") == "1 / 2"


def test_answering_again_makes_a_branch(pages: Pages, server: Scripted) -> None:
    server.scripts = [["Heads."], ["Tails."], ["Edge."]]
    page = pages()
    page.ask("Toss")
    page.sees("Heads.")
    page.label("Answer again")
    page.sees("Tails.")
    page.label("Previous version")
    page.sees("Heads.")
    assert page.text(".answer .branches") == "1 / 2"
    page.ask("Once more")
    page.sees("Edge.")
    assert [each["content"] for each in server.asked[2]["messages"]] == ["Toss", "Heads.", "Once more"]


def test_settings_go_with_the_request_and_stay(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.label("Settings")
    page.type("Be brief.", "textarea[name=system]")
    for name, value in {"temperature": "0.5", "top_p": "0.9", "top_k": "40", "min_p": "0.05", "max_tokens": "64",
                        "seed": "7"}.items():
        page.type(value, f"input[name={name}]")
    page.type('[{"name": "now", "parameters": {}}]', "textarea[name=tools]")
    page.label("Close")
    page.choose("label.thinking select", "high")
    page.go(server.url + "/ui")
    page.ask("Hi")
    page.sees("Hello.")
    asked = server.asked[0]
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert asked == asked | {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 64, "seed": 7,
                             "reasoning_effort": "high", "stream": True, "model": "zonda/breeze-1b",
                             "tools": [{"type": "function", "function": {"name": "now", "parameters": {}}}]}


def test_a_number_that_cannot_be_is_said_and_not_sent(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.label("Settings")
    page.type("5", "input[name=temperature]")
    page.until("document.querySelector('#temperature-hint[role=alert]')?.innerText.includes('2')")
    assert page.js("document.querySelector('#temperature').value") == "5"
    page.type("0.731", "input[name=min_p]")
    page.fill("input[name=top_p]", "0.5")
    page.press("Escape")
    page.ask("Hi")
    page.sees("Hello.")
    assert "temperature" not in server.asked[0]
    assert (server.asked[0]["top_p"], server.asked[0]["min_p"]) == (0.5, 0.731)


def test_the_chosen_model_is_asked(pages: Pages, server: Scripted) -> None:
    server.cards.append({"id": "gale-7b", "object": "model"})
    page = pages()
    page.choose(".models select", "gale-7b")
    page.ask("Hi")
    page.sees("Hello.")
    assert server.asked[0]["model"] == "gale-7b"
    assert not {"temperature", "tools", "enable_thinking"} & set(server.asked[0])


def test_models_that_hold_no_conversations_are_not_offered(pages: Pages, server: Scripted) -> None:
    server.cards[:0] = [{"id": "embed", "object": "model", "status": "loaded", "capabilities": ["embeddings"]}]
    page = pages()
    page.until("document.querySelector('.models select')")
    assert page.js("[...document.querySelectorAll('.models option')].map(each => each.value)") == ["zonda/breeze-1b"]
    server.cards.pop()
    page.go(server.url + "/ui")
    page.sees("No model here chats", ".head")
    server.cards[:] = [{"id": "zonda/breeze-1b", "object": "model"}]
    page.until("document.querySelector('.models select')")


def test_a_model_that_must_be_loaded_first_says_so(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.cards[0] |= {"status": "unloaded", "capabilities": None}
    server.scripts = [[go, "Here."]]
    page = pages()
    page.ask("Hi")
    page.sees("Loading the model…", ".answer")
    assert page.text(".models option").endswith("not loaded")
    server.cards[0] |= {"status": "loaded", "capabilities": ["completion", "chat"]}
    go.set()
    page.sees("Here.")
    page.until("document.querySelector('.models option').innerText === 'zonda/breeze-1b'")


def test_thinking_is_asked_only_of_models_that_can(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.js("localStorage.setItem('zonda.settings', JSON.stringify({thinking: 'high'}))")
    server.cards[0]["capabilities"] = ["completion", "chat"]
    page.go(server.url + "/ui")
    page.ask("Hi")
    page.sees("Hello.")
    assert page.count("label.thinking") == 0 and "reasoning_effort" not in server.asked[0]


def test_dark_follows_the_system_and_can_be_chosen(pages: Pages) -> None:
    page = pages(dark=True)
    colour = "getComputedStyle(document.body.parentElement).backgroundColor"
    dark = page.js(colour)
    page.media(prefers_color_scheme="light")
    light = page.js(colour)
    assert dark != light
    page.label("Theme: system; switch to light")
    page.label("Theme: light; switch to dark")
    page.until(f"{colour} === {dark!r}")
    page.go(page.js("location.origin + location.pathname"))
    assert page.js(colour) == dark


def test_a_phone_has_room_for_everything(pages: Pages, server: Scripted) -> None:
    table = "| a | b |\n|---|---|\n| " + "word " * 40 + " | c |"
    server.scripts = [["A long line: " + "x" * 300 + "\n\n```\n" + "y" * 300 + "\n```\n\n" + table]]
    page = pages(width=320, height=640, touch=True)
    page.ask("A question that is rather long for a telephone, with one " + "z" * 80)
    page.sees("128.0")
    assert page.js("document.documentElement.scrollWidth") == 320
    assert page.js("document.querySelector('.conversation').scrollWidth") <= 320
    assert page.count(".list[hidden]") == 1
    page.label("Answer again")
    page.sees("2 / 2", ".branches")
    sizes = page.js("[...document.querySelectorAll('button, select, a')].filter(each => each.checkVisibility())"
                    ".map(each => each.getBoundingClientRect()).map(({width, height}) => Math.min(width, height))")
    assert min(sizes) >= 24
    assert page.js("getComputedStyle(document.querySelector('.branches')).height") == "36px"  # one line
    page.label("New chat")
    page.sees("What is on your mind?")
    page.label("Show conversations")
    page.sees("A question that is rather", ".heads")
    page.until("document.querySelector('main').inert")
    page.click(".veil")
    page.until("document.querySelector('.list').hidden")
    page.label("Settings")
    assert page.js("document.documentElement.scrollWidth") == 320


def test_a_key_is_asked_for_and_used(pages: Pages, browser: Browser) -> None:
    with scripted(api_key=("secret",)) as locked:
        page = pages(locked.url)
        page.sees("This server asks for a key.", "dialog")
        page.type("wrong", "dialog input")
        page.press("Enter")
        page.sees("The server does not accept this key.", "dialog")
        page.label("Close")
        page.until("!document.querySelector('dialog')")
        page.label("Enter the API key")
        page.sees("This server asks for a key.", "dialog")
        page.fill("dialog input", "secret")
        page.press("Enter")
        page.ask("Hi")
        page.sees("Hello.")
        assert page.js("Object.values(sessionStorage)") == ["secret"]
        assert "secret" not in page.js("JSON.stringify(localStorage)")
        refused = [each for each in page.problems if "401" in each]
        assert page.problems == refused
        page.problems.clear()


def test_a_key_that_holds_no_longer_is_asked_for_anew(pages: Pages) -> None:
    with scripted(api_key=("new",)) as locked:
        page = pages(locked.url)
        page.type("new", "dialog input")
        page.press("Enter")
        page.until("document.querySelector('.models select')")
        page.js("sessionStorage.setItem('zonda.key', 'old')")  # as if the server's had been changed
        page.ask("Hi")
        page.sees("The server does not accept this API key.", ".answer")
        page.sees("The server does not accept this key.", "dialog")
        page.fill("dialog input", "new")
        page.press("Enter")
        page.sees("Hello.", ".answer")
        assert page.count(".trouble") == 0 and page.problems == [each for each in page.problems if "401" in each]
        page.problems.clear()


def test_a_busy_server_is_asked_again(pages: Pages, server: Scripted) -> None:
    server.scripts = [[Overloaded("the queue is full", retry_after=60)], ["At last."]]
    page = pages()
    page.ask("Hi")
    page.sees("Trying again in", ".trouble")
    page.label("Try now")
    page.sees("At last.")
    assert all("429" in each for each in page.problems)
    page.problems.clear()


def test_a_loading_server_is_waited_for(pages: Pages, server: Scripted) -> None:
    card = server.cards.pop()
    page = pages()
    page.sees("Loading the model…")
    server.cards.append(card)
    server.scripts = [[Closed("the model is still loading")], ["Now."]]
    page.ask("Hi")
    page.sees("The model is still loading.", ".trouble")
    page.label("Try now")
    page.sees("Now.")
    assert all("503" in each for each in page.problems)
    page.problems.clear()


def test_errors_are_said_in_words_and_can_be_tried_again(pages: Pages, server: Scripted) -> None:
    server.scripts = [[InvalidRequest("the prompt is too long", hint="shorten it")], ["Better."]]
    page = pages()
    page.ask("Hi")
    page.sees("The prompt is too long (shorten it)", "[role=alert]")
    assert page.count("[aria-label='Answer again']") == 0  # one way is enough
    page.label("Try again")
    page.sees("Better.")
    assert page.count(".trouble") == 0 and page.count(".branches") == 0
    server.scripts = [["Half an ans", InvalidRequest("breeze.gguf broke")]]
    page.ask("More")
    page.sees("breeze.gguf broke.", "[role=alert]")
    page.sees("Half an ans")
    assert all("400" in each for each in page.problems)
    page.problems.clear()


def test_another_server_at_the_same_address_is_noticed(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.until("document.querySelector('.models select')")
    server.cards[0] = {"id": "gale-7b", "object": "model"}
    server.scripts = [[InvalidRequest("there is no model 'zonda/breeze-1b'")], ["Hello."]]
    page.ask("Hi")
    page.sees("There is no model 'zonda/breeze-1b'.", "[role=alert]")
    page.until("document.querySelector('.models select').value === 'gale-7b'")
    page.label("Try again")
    page.sees("Hello.")
    assert [each["model"] for each in server.asked] == ["zonda/breeze-1b", "gale-7b"]
    assert all("400" in each for each in page.problems)
    page.problems.clear()


def test_a_lost_server_is_noticed_and_found_again(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.until("document.querySelector('.models')")
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.ask("Hi")
    page.sees("The server cannot be reached.", "[role=alert]")
    page.sees("Server not reached", ".head")
    page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.until("document.querySelector('.models')")
    page.label("Try again")
    page.sees("Hello.")
    assert all("ERR_INTERNET_DISCONNECTED" in each for each in page.problems)
    page.problems.clear()


def test_everything_is_in_reach_of_the_keyboard(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.until("document.activeElement.id === 'question' && document.querySelector('.models')")
    page.type("one")
    page.press("Enter", shift=True)
    page.type("two")
    page.press("Enter")
    page.sees("128.0", ".stats")
    assert server.asked[0]["messages"][0]["content"] == "one\ntwo"
    assert page.js("document.activeElement.id") == "question"
    page.press("ArrowUp")
    page.until("document.activeElement.ariaLabel === 'Edit your message'")
    page.press("Escape")
    page.press("k", control=True)
    page.until("document.activeElement.id === 'search'")
    page.press("/", control=True)
    page.sees("Stop the answer", "dialog")
    page.press("Escape")
    page.until("!document.querySelector('dialog') && document.activeElement.id === 'search'")
    page.press("Escape")
    page.until("document.activeElement.id === 'question'")
    page.press("o", control=True, shift=True)
    page.sees("What is on your mind?")


def test_every_control_has_a_name_and_every_region_too(pages: Pages, server: Scripted) -> None:
    server.scripts = [[{"reasoning_content": "Hm."}, "# Text\n\n```js\n1\n```\n\n- [x] done"]]
    page = pages()
    page.ask("Hi")
    page.sees("Text")
    page.label("Settings")
    page.until("document.querySelector('dialog[open]')")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    shown = [each for each in tree if not each["ignored"]]
    assert "dialog" in {each["role"]["value"] for each in shown}
    controls = {"button", "textbox", "combobox", "spinbutton", "searchbox", "dialog", "navigation", "region", "form",
                "checkbox", "group"}
    nameless = [each["role"]["value"] for each in shown if not each.get("name", {}).get("value")]
    assert not controls & set(nameless)
    page.label("Close")
    page.until("!document.querySelector('dialog')")
    shown = [each for each in page.call("Accessibility.getFullAXTree")["nodes"] if not each["ignored"]]
    nameless = [each["role"]["value"] for each in shown if not each.get("name", {}).get("value")]
    assert not controls & set(nameless)
    assert {"main", "navigation", "article", "form", "group", "checkbox"} <= {each["role"]["value"] for each in shown}
    levels = {each["name"]["value"]: each["properties"][0]["value"]["value"] for each in shown
              if each["role"]["value"] == "heading"}
    assert levels == {"Today": 2, "Hi": 1, "Text": 2}


@pytest.mark.e2e
def test_a_real_model_answers_in_the_browser(pages: Pages, real_model: Callable[[str], Path]) -> None:
    from zonda import AsyncLLM

    with serving(AsyncLLM(str(real_model("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")), max_seq_len=1024)) as real:
        page = pages(real.url)
        page.js("localStorage.setItem('zonda.settings', JSON.stringify({temperature: '0', max_tokens: '16'}))")
        page.go(real.url + "/ui")
        page.ask("What is the capital of France? Answer in one word.")
        page.sees("Paris", ".answer")
        page.sees("tokens/s", ".stats")
