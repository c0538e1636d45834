"""The web UI where things are out of the ordinary: other tabs, full storage, small windows, long texts, slow models."""
from __future__ import annotations

import json
import threading

import pytest
from browser import Browser, Page, Pages
from fakes import model, serving
from ui_server import Scripted

from zonda.errors import Overloaded

FULL = """{ const name = 'QuotaExceededError';
  IDBObjectStore.prototype.put = () => { throw new DOMException('full', name); };
  Storage.prototype.setItem = () => { throw new DOMException('full', name); }; }"""
FOCUS = "document.activeElement"


@pytest.fixture
def server(script: Scripted) -> Scripted:
    """Each test writes its own scripts."""
    return script


def messages(page: Page) -> list[str]:
    found = page.js("[...document.querySelectorAll('.said, .answer .prose')].map(each => each.textContent.trim())")
    return list(found)


def test_two_tabs_write_in_one_chat_and_lose_nothing(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.scripts = [["First."], ["Slow", go, "ly."], ["Quickly."]]
    one = pages()
    one.ask("A")
    one.sees("First.")
    two = pages(beside=one)
    two.click(".heads .open")
    two.sees("First.", ".answer")
    one.ask("B")
    one.sees("Slow", ".column")
    two.sees("B", ".column")
    two.ask("C")
    two.sees("Quickly.", ".column")
    go.set()
    for page in (one, two):
        page.sees("Slowly.", ".column")
        page.sees("Quickly.", ".column")
        assert messages(page) == ["A", "First.", "B", "Slowly.", "C", "Quickly."]
    one.go(server.url + "/ui")
    one.click(".heads .open")
    one.sees("Quickly.", ".column")
    assert messages(one) == messages(two)


def test_a_tab_that_heard_nothing_of_another_overwrites_nothing(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.ask("A")
    page.sees("Hello.")
    page.sees("A", ".heads")
    assert page.js("""(async () => {
        const { load, save } = await import("./ui/database.js"), { add, path } = await import("./ui/tree.js");
        const { state } = await import("./ui/state.js"), { keep } = await import("./ui/answering.js");
        const theirs = await load(state.current.id);
        add(theirs, path(theirs).at(-1).id, {role: "user", text: "B", files: []});
        await save(theirs);
        await keep(state.current);
        return path(await load(theirs.id)).map(each => each.text);
    })()""") == ["A", "Hello.", "B"]


def test_settings_of_two_tabs_are_all_kept(pages: Pages, server: Scripted) -> None:
    one = pages()
    two = pages(beside=one)
    one.label("Settings")
    one.type("Be brief.", "textarea[name=system]")
    two.label("Settings")
    two.type("7", "input[name=seed]")
    kept = json.loads(two.js("localStorage.getItem('zonda.settings')"))
    assert (kept["system"], kept["seed"]) == ("Be brief.", "7")
    one.until("document.querySelector('input[name=seed]').value === '7'")
    one.label("Close")
    one.label("Theme: system; switch to light")
    two.until("document.documentElement.dataset.theme === 'light'")


def test_a_chat_that_is_deleted_while_it_is_answered_is_gone(pages: Pages, server: Scripted) -> None:
    server.scripts = [["Half", threading.Event()]]
    page = pages()
    page.ask("Doomed")
    page.sees("Half", ".answer")
    page.label("Options of Doomed")
    page.label("Delete")
    page.sees("Deleted “Doomed”.")
    page.until("document.querySelector('button.send').ariaLabel === 'Send'")
    assert page.js("import('./ui/database.js').then(found => found.all()).then(all => all.length)") == 0
    page.label("Undo")
    page.sees("Half", ".answer")
    page.sees("stopped", ".stats")


def test_full_storage_is_said_and_the_chat_goes_on(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.js(FULL)
    page.ask("Hi")
    page.sees("Hello.", ".answer")
    page.sees("This browser has no room left", ".notices")
    page.js("window.saved = []; URL.createObjectURL = blob => { window.saved.push(blob.text()); return '#'; }")
    page.label("Export this chat")
    page.until("window.saved.length")
    assert [each["text"] for each in json.loads(page.js("window.saved[0]"))["nodes"].values()] == ["Hi", "Hello."]
    page.label("Theme: system; switch to light")
    page.sees("This browser does not keep settings.", ".notices")
    page.ask("More")
    page.until("document.querySelectorAll('.answer .stats').length === 2")


def test_a_reader_who_scrolls_up_is_left_there(pages: Pages, server: Scripted) -> None:
    more, end = threading.Event(), threading.Event()
    server.scripts = [["line\n\n" * 60, more, *["line\n\n"] * 30, end, "Last."]]
    page = pages()
    page.ask("Count")
    page.until("document.querySelectorAll('.prose p').length === 60")
    left = "(({scrollHeight, scrollTop, clientHeight}) => scrollHeight - scrollTop - clientHeight)" \
           "(document.querySelector('.conversation'))"
    page.until(f"{left} < 1")
    page.wheel(".conversation", -30)
    page.until(f"{left} > 20")
    before = page.js("document.querySelector('.conversation').scrollTop")
    more.set()
    page.until("document.querySelectorAll('.prose p').length === 90")
    page.sees("Latest", ".conversation")
    assert page.js("document.querySelector('.conversation').scrollTop") == before
    page.label("Latest")
    page.until(f"{left} < 1")
    end.set()
    page.sees("Last.", ".answer")
    page.until(f"{left} < 1 && document.querySelector('.stats')")


def test_the_form_for_results_of_tools_comes_into_sight(pages: Pages, server: Scripted) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    server.scripts = [["line\n\n" * 40, {"tool_calls": [call]}]]
    page = pages()
    page.ask("When?")
    page.until("document.querySelector('.results')")
    page.until("!document.querySelector('.latest')")
    assert page.box(".results")[3] < page.box(".foot")[1]
    page.sees("The model asks for the result of now.", "#announcer")


def test_versions_are_gone_through_with_the_keyboard(pages: Pages, server: Scripted) -> None:
    server.scripts = [["One."], ["Two."]]
    page = pages()
    page.ask("Toss")
    page.sees("One.")
    page.label("Answer again")
    page.sees("2 / 2", ".branches")
    page.until(f"{FOCUS}.id === 'question'")
    page.js("document.querySelector('[aria-label=\"Previous version\"]').focus()")
    for _ in range(2):  # the second has nothing to do
        page.press("Enter")
        page.sees("1 / 2", ".branches")
        assert page.js(f"{FOCUS}.ariaLabel") == "Previous version"
    page.press("Tab")
    page.until(f"{FOCUS}.ariaLabel === 'Next version'")
    page.press("Enter")
    page.sees("Two.", ".answer")


def test_a_message_cannot_be_rewritten_into_an_answer_that_is_being_written(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.scripts = [["One."], ["Two", go, "."], ["Three."]]
    page = pages()
    page.ask("A")
    page.sees("One.")
    page.label("Edit message")
    page.until(f"{FOCUS}.ariaLabel === 'Edit your message'")
    page.ask("B")
    page.sees("Two", ".column")
    page.js("document.querySelector('[aria-label=\"Edit your message\"]').focus()")
    page.type("!")
    page.press("Enter")
    assert page.js("document.querySelector('.rewriting .main').disabled") and len(server.asked) == 2
    go.set()
    page.until("!document.querySelector('.rewriting .main').disabled")
    page.press("Enter")
    page.sees("Three.", ".column")
    assert server.asked[2]["messages"] == [{"role": "user", "content": "A!"}]


def test_an_answer_that_fails_on_its_way_stays_and_can_be_had_again(pages: Pages, server: Scripted) -> None:
    server.scripts = [["Half an answer", Overloaded("the queue is full")], ["Whole."]]
    page = pages()
    page.ask("Hi")
    page.sees("The queue is full", "[role=alert]")
    page.until("document.querySelector('.trouble button:enabled')")
    page.js("document.querySelector('.trouble button').focus()")
    page.press("Enter")
    page.sees("Whole.", ".column")
    page.until(f"{FOCUS}.id === 'question'")
    page.label("Previous version")
    page.sees("Half an answer", ".column")


def test_a_model_that_was_unloaded_meanwhile_is_said_to_load(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.cards[0] |= {"status": "loaded", "capabilities": ["completion", "chat"]}
    server.scripts = [[go, "Here."]]
    page = pages()
    page.until("document.querySelector('.models select')")
    server.cards[0] |= {"status": "loading", "capabilities": None}
    page.ask("Hi")
    page.sees("Loading the model…", ".answer")
    server.cards[0] |= {"status": "loaded", "capabilities": ["completion", "chat"]}
    page.until("document.querySelector('.breath span.unseen')")
    go.set()
    page.sees("Here.", ".answer")
    page.until("document.querySelector('.models option').innerText === 'zonda/breeze-1b'")


def test_an_image_waits_for_a_model_that_sees(pages: Pages, server: Scripted) -> None:
    server.cards[0]["capabilities"] = ["chat", "vision"]
    server.cards.append({"id": "gale-7b", "object": "model", "capabilities": ["chat"]})
    page = pages()
    page.drop("dot.png", "image/png", b"\x89PNG")
    page.sees("dot.png", ".composer .files")
    page.choose(".models select", "gale-7b")
    page.sees("gale-7b takes no images.", ".composer [role=alert]")
    assert page.js("document.querySelector('button.send').disabled")
    page.choose(".models select", "zonda/breeze-1b")
    page.until("!document.querySelector('button.send').disabled && !document.querySelector('.composer [role=alert]')")
    page.drop("photo.heic", "image/heic", b"\0")
    page.sees("photo.heic is neither a text file nor", ".notices")


def test_a_real_server_gets_texts_and_is_spared_images(pages: Pages) -> None:
    with serving(model()) as real:
        page = pages(real.url)
        page.until("document.querySelector('[aria-label=\"Attach text files\"]')")
        page.drop("dot.png", "image/png", b"\x89PNG")
        page.sees("This model takes no images (dot.png).", ".notices")
        page.drop("notes.txt", "text/plain", b"wxy")
        page.sees("notes.txt", ".composer .files")
        page.ask("Sum up x")
        page.sees("yz", ".answer")


def test_endless_words_are_laid_out_without_kerning(pages: Pages, server: Scripted) -> None:
    """With kerning, Chromium shapes the rest of a word anew for each line: seconds a frame for 100,000 letters."""
    server.scripts = [["It is:\n\n" + "x" * 1000 + "\n\n- " + "y" * 1000], [{"reasoning_content": "z" * 1000}, "Done."]]
    page = pages()
    page.ask("u" * 1000)
    page.until("document.querySelectorAll('.stats').length === 1")
    page.ask("Think")
    page.until("document.querySelectorAll('.stats').length === 2")
    page.click(".thought button")
    page.type("w" * 1000, "#question")
    page.until("document.querySelector('#question').className")
    found = page.js("[...document.querySelectorAll('.said, .prose :is(p, ul), #question')]"
                    ".map(each => (each.value || each.innerText)[0] + getComputedStyle(each).fontKerning)")
    assert found == ["unone", "Iauto", "xnone", "ynone", "Tauto", "znone", "Dauto", "wnone"]


@pytest.mark.parametrize(("width", "height"), [(640, 400), (320, 256)], ids=["zoom 200 %", "zoom 400 %"])
def test_all_can_be_reached_in_a_small_window(pages: Pages, server: Scripted, width: int, height: int) -> None:
    page = pages(width=width, height=height)
    page.ask("Hi")
    page.sees("Hello.", ".answer")
    assert page.js("document.querySelector('.conversation').clientHeight") >= 60
    for name in ("shortcuts", "settings", "key"):
        page.js(f"import('./ui/state.js').then(found => found.set({{dialog: {name!r}}}))")
        page.until(f"document.querySelector('dialog.{name}[open]')")
        _, top, _, bottom = page.box("dialog")
        assert 0 <= top < bottom <= height
        for part in ("dialog .sheet > :first-child", "dialog .sheet > :last-child"):
            page.js(f"document.querySelector({part!r}).scrollIntoView({{block: 'nearest'}})")
            _, top, _, bottom = page.box(part)
            assert bottom > 0 and top < height
        assert page.js("document.documentElement.scrollWidth") == width
        page.press("Escape")
        page.until("!document.querySelector('dialog')")


def test_forced_colours_hide_nothing(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.scripts = [["- [x] done\n\nText", go, "."]]
    page = pages()
    page.media(forced_colors="active", prefers_color_scheme="dark")
    page.ask("Hi")
    page.sees("Text", ".answer")
    page.until("document.querySelector('.heads .current .busy')")
    style = "getComputedStyle(document.querySelector({!r}), {!r}).{}"
    assert page.js(style.format("input[type=checkbox]", "", "appearance")) == "auto"
    for place, part in ((".prose.live > .block:last-child > p", "::after"), (".heads .busy", "")):
        assert page.js(style.format(place, part, "backgroundColor")) == "rgb(255, 255, 255)"
    for place in (".said", ".heads li.current"):
        assert page.js(style.format(place, "", "outlineStyle")) == "solid"
    go.set()
    page.sees("128.0", ".stats")


def test_nothing_moves_for_those_who_asked_for_that(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.scripts = [["Text", go, "."]]
    page = pages()
    page.media(prefers_reduced_motion="reduce")
    page.ask("Hi")
    page.sees("Text", ".answer")
    assert page.js("document.getAnimations().length") == 0
    go.set()
    page.sees("128.0", ".stats")


def test_a_browser_without_storage_says_that_chats_are_not_kept(pages: Pages, server: Scripted) -> None:
    page = pages()
    without = "Object.defineProperty(window, 'indexedDB', {value: null})"
    page.call("Page.addScriptToEvaluateOnNewDocument", source=without)
    page.go(server.url + "/ui")
    page.sees("This browser keeps nothing", ".list")
    page.ask("Hi")
    page.sees("Hello.", ".answer")
    page.sees("Hi", ".heads")


def test_a_reload_shows_the_chat_that_was_shown(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.ask("Apples")
    page.sees("Hello.", ".answer")
    page.sees("Apples", ".heads")
    assert page.js("document.title") == "Apples · Zonda"
    page.js("window.left = true; location.reload()")
    page.until("!window.left")
    page.sees("Hello.", ".answer")
    page.label("New chat")
    page.until("document.title === 'Zonda' && !location.hash")


def test_files_are_taken_wherever_they_fall(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.until("document.querySelector('#question').placeholder.startsWith('Ask')")
    taken = page.js("""(() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["abc"], "notes.txt", {type: "text/plain"}));
        return ["dragover", "drop"].map(name => !document.querySelector(".head").dispatchEvent(
            new DragEvent(name, {dataTransfer, bubbles: true, cancelable: true}))); })()""")
    assert taken == [True, True]
    page.sees("notes.txt", ".composer .files")


def test_what_is_written_can_be_copied(pages: Pages, browser: Browser, server: Scripted) -> None:
    server.scripts = [["Use **this**:\n\n```python\nprint(1)\n\nprint(2)\n```\n"]]
    page = pages()
    browser.call("Browser.grantPermissions", browserContextId=page.context, permissions=["clipboardReadWrite"])
    page.ask("How?")
    page.sees("128.0", ".stats")
    for name, text in {"Copy message": "How?", "Copy answer": "Use **this**:\n\n```python\nprint(1)\n\nprint(2)\n```\n",
                       "Copy python code": "print(1)\n\nprint(2)"}.items():
        page.label(name)
        page.until(f"navigator.clipboard.readText().then(found => found.trimEnd() === {json.dumps(text.rstrip())})")
    page.sees("Copied.", "#announcer")
    page.js("window.plain = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.until("document.querySelector('[aria-label=\"Copy message\"]')")
    page.js("document.querySelector('[aria-label=\"Copy message\"]').focus()")  # as on pages over plain HTTP
    page.press("Enter")
    page.until("plain.readText().then(found => found === 'How?')")
    assert page.js(f"{FOCUS}.ariaLabel.startsWith('Cop')")


def test_an_export_is_the_same_after_its_import(pages: Pages, server: Scripted) -> None:
    server.scripts = [[{"reasoning_content": "Hm."}, "One."], ["Two."]]
    whole = "import('./ui/database.js').then(found => found.all())"
    one, two = pages(), pages()
    one.drop("notes.txt", "text/plain", b"abc")
    one.ask("Toss")
    one.sees("One.", ".answer")
    one.label("Answer again")
    one.sees("Two.", ".answer")
    one.until(f"{whole}.then(([tree]) => Object.values(tree.nodes).every(each => each.role === 'user' || each.finish))")
    told = one.js(whole)
    two.js("import('./ui/actions.js').then(found => found.restore("
           f"new File([{json.dumps(json.dumps(told))}], 'a.json')))")
    two.sees("Imported “Toss”.", ".notices")
    assert two.js(whole) == told
