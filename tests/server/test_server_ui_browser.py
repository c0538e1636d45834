"""The web UI as a person meets it: in headless Chromium, against scripted answers and against a real server."""
from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, Page
from fakes import model, serving, until
from ui_server import Scripted, scripted

from zonda.errors import Closed, InvalidRequest, Overloaded

Pages = Callable[..., Page]
ATTACK = """Before <script>window.hit = 1</script> <img src=x onerror="window.hit = 2">
<svg onload="window.hit = 3"></svg>

[press](javascript:window.hit=4) [data](data:text/html,<script>window.hit=5</script>)
<a href="javascript:window.hit=6">raw</a>

<iframe srcdoc="<script>parent.hit = 7</script>"></iframe><style>body { display: none }</style>

<details><summary>more</summary>inside</details>

![pixel](https://evil.example/pixel.png) ![local](/metrics)

```html" onmouseover="window.hit=8
<script>window.hit = 9</script>
```

$\\href{javascript:window.hit=10}{x} \\htmlStyle{color:red}{y}$
<math><mtext><img src=x onerror=window.hit=11></mtext></math>

<form action="https://evil.example"><input name=a></form><base href="https://evil.example/">
<b style="color:red">bold</b> After"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def server(shared: Scripted) -> Scripted:
    """One server for all; each test writes its own scripts."""
    shared.scripts = [["Hello."]]
    shared.asked.clear()
    del shared.cards[1:]
    shared.cards[0].pop("capabilities", None)
    return shared


@pytest.fixture
def pages(browser: Browser, server: Scripted) -> Iterator[Pages]:
    """Opens pages, which in the end must have complained of nothing and asked nobody but the server."""
    opened: list[Page] = []

    def page(url: str = "", **options: object) -> Page:
        opened.append(browser.page(**options))  # type: ignore[arg-type]
        opened[-1].go((url or server.url) + "/ui")
        return opened[-1]

    yield page
    for each in opened:
        assert each.problems == []
        assert all(request.startswith(("http://127.0.0.1:", "data:", "blob:")) for request in each.requests)
        each.close()


def test_a_real_server_answers(pages: Pages) -> None:
    with serving(model()) as real:
        page = pages(real.url)
        page.ask("Say x")
        page.sees("yz", ".answer")
        page.sees("tokens/s", ".stats")
        assert page.js("document.querySelector('.models select').value") == "chain"


def test_an_answer_is_formatted_while_it_streams(pages: Pages, server: Scripted) -> None:
    go = threading.Event()
    server.scripts = [["# Wind\n\nIt is **warm** and", go, " dry.\n\n```python\nprint(1)\n```\n"]]
    page = pages()
    page.ask("Tell me")
    page.sees("It is warm and")
    assert (page.text(".prose h1"), page.text(".prose strong")) == ("Wind", "warm")
    assert page.count(".prose.live") == 1 and page.count("article[aria-busy=true]") == 1
    go.set()
    page.sees("128.0 tokens/s · first after 42 ms", ".stats")
    assert page.text(".prose pre").strip() == "print(1)" and page.count(".hljs-built_in") == 1
    assert page.count(".prose.live") == 0
    page.sees("It is warm and dry.", "#announcer")


def test_mathematics_is_typeset_and_money_is_not(pages: Pages, server: Scripted) -> None:
    server.scripts = [["It costs $5 or $6: $\\sqrt{x}$ and \\(a\\).\n\n$$\\int_0^1 x\\,dx$$\n\n\\[\nb\n\\]"]]
    page = pages()
    page.ask("Compute")
    page.until("document.querySelectorAll('.katex').length === 4")
    assert page.count(".katex-display") == 2 and page.count(".katex svg") == 1
    assert "It costs $5 or $6" in page.text(".prose")


def test_broken_mathematics_can_be_read_in_light_and_dark(pages: Pages, server: Scripted) -> None:
    server.scripts = [["$\\frac{1}{$ and $\\undefined{x}$"]]
    page = pages(dark=True)
    page.ask("Compute")
    page.until("document.querySelector('.katex-error') && document.querySelector('.katex .mord.text')")
    colour = "getComputedStyle(document.querySelector({!r})).color"
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        page.js("document.body.appendChild(document.createElement('i')).style.color = 'var(--bad)'")
        found = {page.js(colour.format(each)) for each in ("body > i", ".katex-error", ".katex .mord.text > .mord")}
        assert len(found) == 1


def test_each_text_runs_its_own_way(pages: Pages, server: Scripted) -> None:
    server.scripts = [["مرحبا `code` English\n\n- أولا\n\n> اقتباس\n\n| عمود |\n|---|\n| 1 |\n\n"
                       "```js\nlet x\n```\n\nEnglish مرحبا"]]
    page = pages()
    page.ask("اكتب (now)")
    page.sees("128.0", ".stats")
    texts = "[...document.querySelectorAll('.said, .prose p, .prose ul, .prose blockquote, .prose table, .prose pre')]"
    assert page.js(texts + ".map(each => getComputedStyle(each).direction)") == ["rtl"] * 6 + ["ltr", "ltr"]
    assert page.js("getComputedStyle(document.querySelector('.conversation')).direction") == "ltr"


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


def test_what_a_model_writes_cannot_run(pages: Pages, server: Scripted) -> None:
    server.scripts = [[ATTACK]]
    page = pages()
    page.ask("Attack")
    page.sees("After")
    page.until("document.querySelector('.katex')")
    links = page.js("[...document.querySelectorAll('.prose a')].map(each => each.getAttribute('href'))")
    assert links == ["https://evil.example/pixel.png"]
    assert page.count(".prose :is(script, iframe, style, form, base, object, embed, link, meta, img)") == 0
    assert page.js("[...document.querySelectorAll('.prose *')].flatMap(each => each.getAttributeNames())"
                   ".filter(each => each.startsWith('on') || each === 'srcdoc')") == []
    page.js("document.querySelectorAll('.prose *').forEach(each => each.dispatchEvent(new Event('click')))")
    assert page.js("window.hit ?? null") is None
    assert "<script>window.hit = 1</script>" in page.text(".prose") and page.count(".prose details summary") == 1


@pytest.mark.parametrize("text", [
    ">" * 20_000 + " x", "- " * 5_000 + "x", "\n".join("  " * depth + "- x" for depth in range(200)), "**a_" * 10_000,
    "[a](" * 10_000, "$" + "{" * 5_000 + "x" + "}" * 5_000 + "$", "<details>" * 2_000, "`" * 9_999, "x" * 30_000],
    ids=["quotes", "list in one line", "lists", "emphasis", "links", "braces", "details", "ticks", "one word"])
def test_absurd_texts_leave_the_page_in_working_order(pages: Pages, server: Scripted, text: str) -> None:
    server.scripts = [[text], ["Still here."]]
    page = pages()
    page.ask("Hi")
    page.sees("128.0", ".stats")
    page.ask("And now?")
    page.sees("Still here.")


def test_a_growing_text_is_read_as_the_whole_would_be(pages: Pages) -> None:
    text = ("Lazy\nheading\n===\n\n- a\n\n  b\n\n1. c\n   - d\n\n     e\n2. f\n\n> g\nlazy\n> - h\n\n    code\n\n\n    more\n\ni\n"
            "| a | b |\n|--|--|\n| 1 | 2 |\nj\n\n<details>\n<summary>k</summary>\n\nl\n\n</details>\n\n***\n\n~~~py\nm\n\nn\n~~~\n"
            "o\r\np\r\n\r\n- q\r\n- r\r\n\r\n\r\ns\n\n$$\nt\n$$\n\\[ u \\]\n\n- [x] v\n- [ ] w\n\n# x\n#y\nz\n---\n- - -\n") * 3
    assert pages().js("""(async text => {
        const { Growing, blocks } = await import("./ui/markdown.js");
        const told = found => JSON.stringify(found.map(({ raw, token }) => [raw, token.type]));
        const wrong = [];
        for (const step of [1, 2, 3, 7, 20]) {
            const growing = new Growing();
            for (let end = 0; end < text.length + step; end += step) {
                const part = text.slice(0, end);
                if (told(growing.blocks(part)) !== told(blocks(part))) wrong.push([step, end]);
            }
        }
        return wrong;
    })(""" + json.dumps(text) + ")") == []


def test_code_that_grows_is_whole_and_coloured_in_the_end(pages: Pages, server: Scripted) -> None:
    lines = [f"value_{line} = {line}\n" for line in range(300)]
    server.scripts = [["```python\n", *lines, "```\n\nDone."]]
    page = pages()
    page.ask("Count")
    page.sees("128.0", ".stats")
    assert page.text(".prose pre").strip() == "".join(lines).strip()
    assert page.count(".prose pre .hljs-number") == len(lines)


def test_settings_go_with_the_request_and_stay(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.label("Settings")
    page.type("Be brief.", "textarea[name=system]")
    for name, value in {"temperature": "0.5", "top_p": "0.9", "top_k": "40", "min_p": "0.05", "max_tokens": "64",
                        "seed": "7"}.items():
        page.type(value, f"input[name={name}]")
    page.type('[{"name": "now", "parameters": {}}]', "textarea[name=tools]")
    page.label("Close")
    page.js("{ const choice = document.querySelector('label.thinking select'); choice.value = 'high';"
            " choice.dispatchEvent(new Event('change', {bubbles: true})); }")
    page.go(server.url + "/ui")
    page.ask("Hi")
    page.sees("Hello.")
    asked = server.asked[0]
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert asked == asked | {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 64, "seed": 7,
                             "reasoning_effort": "high", "stream": True, "model": "zonda/breeze-1b",
                             "tools": [{"type": "function", "function": {"name": "now", "parameters": {}}}]}


def test_the_chosen_model_is_asked(pages: Pages, server: Scripted) -> None:
    server.cards.append({"id": "gale-7b", "object": "model"})
    page = pages()
    page.until("document.querySelector('.models select')")
    page.js("{ const choice = document.querySelector('.models select'); choice.value = 'gale-7b';"
            " choice.dispatchEvent(new Event('change', {bubbles: true})); }")
    page.ask("Hi")
    page.sees("Hello.")
    assert server.asked[0]["model"] == "gale-7b"
    assert not {"temperature", "tools", "enable_thinking"} & set(server.asked[0])


def drop(page: Page, name: str, kind: str, data: str) -> None:
    """Let a file, in base64, fall onto the message."""
    page.until("document.querySelector('#question').placeholder.startsWith('Ask')")
    page.js(f"""{{
        const bytes = Uint8Array.from(atob({data!r}), each => each.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], {name!r}, {{type: {kind!r}}}));
        const drop = new DragEvent('drop', {{dataTransfer, bubbles: true}});
        document.querySelector('.composer').dispatchEvent(drop); }}""")


def test_text_files_are_put_into_the_message(pages: Pages, server: Scripted) -> None:
    page = pages()
    drop(page, "notes.txt", "text/plain", "YSBgYGAgYg==")  # a ``` b
    page.sees("notes.txt", ".composer .files")
    page.ask("Sum up")
    page.sees("Hello.")
    assert server.asked[0]["messages"][0]["content"] == "File: notes.txt\n````\na ``` b\n````\n\nSum up"
    drop(page, "noise.bin", "", "AAECAw==")
    page.sees("noise.bin is not a text file.", ".notice")


def test_pictures_are_taken_where_the_model_sees(pages: Pages, server: Scripted) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    page = pages()
    drop(page, "dot.png", "image/png", pixel)
    page.sees("This model takes no images", ".notice")
    server.cards[0]["capabilities"] = ["vision"]
    page.go(server.url + "/ui")
    drop(page, "dot.png", "image/png", pixel)
    page.sees("dot.png", ".composer .files")
    page.ask("What is it?")
    page.sees("Hello.")
    assert server.asked[0]["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}},
        {"type": "text", "text": "What is it?"}]


def test_conversations_are_kept_found_renamed_and_deleted(pages: Pages, server: Scripted) -> None:
    page = pages()
    for text in ("Apples", "Pears"):
        page.ask(text)
        page.sees("Hello.")
        page.sees(text, ".heads")
        page.label("New chat")
        page.sees("What is on your mind?")
    page.go(server.url + "/ui")
    page.sees("Pears", ".heads")
    page.type("apple", "#search")
    page.until("document.querySelectorAll('.heads li').length === 1")
    page.click(".heads .open")
    page.sees("Hello.")
    page.label("Options of Apples")
    page.label("Rename")
    page.fill(".naming", "Fruit")
    page.press("Enter")
    page.sees("Fruit", ".heads")
    page.label("Options of Fruit")
    page.label("Delete")
    page.sees("Deleted “Fruit”.")
    page.until("!document.querySelector('.heads').innerText.includes('Fruit')")
    page.label("Undo")
    page.sees("Fruit", ".heads")
    page.sees("Apples", ".said")


def test_a_conversation_can_be_exported(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.js("window.saved = []; URL.createObjectURL = blob => { window.saved.push(blob.text()); return '#'; }")
    page.ask("Apples")
    page.sees("Hello.")
    for form in ("Markdown", "JSON"):
        page.label("Options of Apples")
        page.label(f"Export as {form}")
        page.until(f"window.saved.length === {1 + (form == 'JSON')}")
    text, data = page.js("Promise.all(window.saved)")
    assert text == "# Apples\n\n## You\n\nApples\n\n## zonda/breeze-1b\n\nHello.\n"
    assert [each["text"] for each in json.loads(data)["nodes"].values()] == ["Apples", "Hello."]


def test_dark_follows_the_system_and_can_be_chosen(pages: Pages) -> None:
    page = pages(dark=True)
    colour = "getComputedStyle(document.body.parentElement).backgroundColor"
    dark = page.js(colour)
    page.scheme("light")
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
    page = pages(width=360, height=640, touch=True)
    page.ask("A question that is rather long for a telephone, with one " + "z" * 80)
    page.sees("128.0")
    assert page.js("document.documentElement.scrollWidth") == 360
    assert page.js("document.querySelector('.conversation').scrollWidth") <= 360
    assert page.count(".list[hidden]") == 1
    page.label("Show conversations")
    page.sees("A question that is rather", ".heads")
    page.until("document.querySelector('main').inert")
    page.click(".veil")
    page.until("document.querySelector('.list').hidden")
    page.label("Settings")
    assert page.js("document.documentElement.scrollWidth") == 360


def test_a_key_is_asked_for_and_used(pages: Pages, browser: Browser) -> None:
    with scripted(api_key=("secret",)) as locked:
        page = pages(locked.url)
        page.sees("This server asks for a key.", "dialog")
        page.type("wrong", "dialog input")
        page.press("Enter")
        page.sees("The server does not accept this key.", "dialog")
        page.fill("dialog input", "secret")
        page.press("Enter")
        page.ask("Hi")
        page.sees("Hello.")
        assert page.js("Object.values(sessionStorage)") == ["secret"]
        assert "secret" not in page.js("JSON.stringify(localStorage)")
        refused = [each for each in page.problems if "401" in each]
        assert page.problems == refused
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
    page.label("Try again")
    page.sees("Better.")
    assert page.count(".trouble") == 0 and page.count(".branches") == 0
    server.scripts = [["Half an ans", InvalidRequest("breeze.gguf broke")]]
    page.ask("More")
    page.sees("breeze.gguf broke.", "[role=alert]")
    page.sees("Half an ans")
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
    page.js("document.activeElement.blur()")
    page.press("?")
    page.sees("Stop the answer", "dialog")
    page.label("Close")
    page.press("/")
    page.until("document.activeElement.id === 'question'")
    page.press("o", control=True, shift=True)
    page.sees("What is on your mind?")


def test_every_control_has_a_name_and_every_region_too(pages: Pages, server: Scripted) -> None:
    server.scripts = [[{"reasoning_content": "Hm."}, "Text\n\n```js\n1\n```"]]
    page = pages()
    page.ask("Hi")
    page.sees("Text")
    page.label("Settings")
    page.until("document.querySelector('dialog[open]')")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    shown = [each for each in tree if not each["ignored"]]
    assert "dialog" in {each["role"]["value"] for each in shown}
    controls = {"button", "textbox", "combobox", "spinbutton", "searchbox", "dialog", "navigation", "region", "form"}
    assert [each["role"]["value"] for each in shown
            if each["role"]["value"] in controls and not each.get("name", {}).get("value")] == []
    page.label("Close")
    page.until("!document.querySelector('dialog')")
    roles = {each["role"]["value"] for each in page.call("Accessibility.getFullAXTree")["nodes"] if not each["ignored"]}
    assert {"main", "navigation", "article", "form"} <= roles
    assert page.text("h1") == "Hi"


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
