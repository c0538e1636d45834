"""What the web UI makes of texts: Markdown, mathematics and code, however they come, and none of it runs."""
from __future__ import annotations

import json
import threading

import pytest
from browser import Pages
from contrast import FAINT
from ui_server import Scripted

from zonda.errors import InvalidRequest

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
NESTED = """<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.hit=1&gt;">

<svg></p><style><a id="</style><img src=1 onerror=window.hit=2>">

<form><math><mtext></form><form><mglyph><style></math><img src onerror=window.hit=3>

<noscript><p title="</noscript><img src=x onerror=window.hit=4>">

<template><img src=x onerror=window.hit=5></template>

[a](JaVaScRiPt:window.hit=6) [b](&#106;avascript:window.hit=7) <javascript:window.hit=8> [c](vbscript:x)

| <img src=x onerror=window.hit=9> | <b style="position:fixed;inset:0">x</b> |
|-|-|
| <svg onload=window.hit=10> | <b id=question name=chats>y</b> |

```<img src=x onerror=window.hit=11>
<img src=x onerror=window.hit=12>
```

$\\url{javascript:window.hit=13}$ $\\def\\a{\\a\\a}\\a$ $x$ After"""
IMAGE = '<img src=x onerror="window.hit=1"><svg/onload=window.hit=2>'
MIXED = """Lazy
heading
===

- a

  b

1. c
   - d

     e
2. f

> g
lazy
> - h

    code


    more

i
| a | b |
|--|--|
| 1 | 2 |
j

<details>
<summary>k</summary>

l

</details>

***

~~~py
m

n
~~~
o\r
p\r
\r
- q\r
- r\r
\r
s

$$
t
$$
\\[ u \\]

- [x] v
- [ ] w

# x
#y
z
---
- - -
"""


@pytest.fixture
def server(script: Scripted) -> Scripted:
    """Each test writes its own scripts."""
    return script


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
        page.media(prefers_color_scheme=scheme)
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


@pytest.mark.parametrize(("attack", "links"), [(ATTACK, ["https://evil.example/pixel.png"]), (NESTED, [])],
                         ids=["plain", "nested"])
def test_what_a_model_writes_cannot_run(pages: Pages, server: Scripted, attack: str, links: list[str]) -> None:
    server.scripts = [[attack[at:at + 7] for at in range(0, len(attack), 7)]]
    page = pages()
    page.ask("Attack")
    page.sees("128.0", ".stats")
    page.until("document.querySelector('.katex')")
    assert page.js("[...document.querySelectorAll('.prose a')].map(each => each.getAttribute('href'))") == links
    assert page.count(".prose :is(script, iframe, style, form, base, object, embed, link, meta, img, template)") == 0
    assert page.js("[...document.querySelectorAll('.prose *')].flatMap(each => each.getAttributeNames())"
                   ".filter(each => each.startsWith('on') || ['srcdoc', 'id', 'name'].includes(each))") == []
    page.js("document.querySelectorAll('.prose *').forEach(each => each.dispatchEvent(new Event('click')))")
    assert page.js("window.hit ?? null") is None


def test_raw_html_is_shown_and_some_of_it_kept(pages: Pages, server: Scripted) -> None:
    server.scripts = [[ATTACK]]
    page = pages()
    page.ask("Attack")
    page.sees("After")
    assert "<script>window.hit = 1</script>" in page.text(".prose") and page.count(".prose details summary") == 1


def test_names_thoughts_calls_and_errors_cannot_run_either(pages: Pages, server: Scripted) -> None:
    server.cards[:] = [{"id": IMAGE, "object": "model", "max_model_len": IMAGE, "capabilities": ["chat", IMAGE],
                        "status": IMAGE, "aliases": [IMAGE]}]
    call = {"index": 0, "id": IMAGE, "type": "function", "function": {"name": IMAGE, "arguments": IMAGE}}
    server.scripts = [[{"reasoning_content": IMAGE}, {"tool_calls": [call]}, IMAGE],
                      [InvalidRequest(IMAGE, hint=IMAGE)]]
    page = pages()
    page.ask(IMAGE)
    page.sees("128.0", ".stats")
    page.ask(IMAGE)
    page.sees(IMAGE, "[role=alert]")
    assert page.js("window.hit ?? null") is None and page.count("img[src=x], svg[onload]") == 0
    assert all("400" in each for each in page.problems)
    page.problems.clear()


@pytest.mark.parametrize("text", [
    ">" * 20_000 + " x", "- " * 5_000 + "x", "\n".join("  " * depth + "- x" for depth in range(200)), "**a_" * 10_000,
    "[a](" * 10_000, "$" + "{" * 5_000 + "x" + "}" * 5_000 + "$", "<details>" * 2_000, "`" * 9_999, "x" * 15_000],
    ids=["quotes", "list in one line", "lists", "emphasis", "links", "braces", "details", "ticks", "one word"])
def test_absurd_texts_leave_the_page_in_working_order(pages: Pages, server: Scripted, text: str) -> None:
    server.scripts = [[text], ["Still here."]]
    page = pages()
    page.ask("Hi")
    page.sees("128.0", ".stats")
    page.ask("And now?")
    page.sees("Still here.")


def test_endless_words_are_laid_out_in_pieces(pages: Pages, server: Scripted) -> None:
    """Chromium takes time by the square of the runs of one script in a text: seconds for 100,000 letters in two."""
    word = "漢x字𠮷" * 3000
    server.scripts = [[f"{word}\n\n- {word}\n\n> *{word[:6000]}* and"]]
    page = pages()
    page.ask(word)
    page.sees("128.0", ".stats")
    for element in (".said", ".prose p", ".prose li", ".prose blockquote em"):
        whole, pieces = page.js(f"""(() => {{
            const element = document.querySelector({json.dumps(element)});
            const walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
            const found = [];
            while (walk.nextNode()) found.push(walk.currentNode.data);
            return [element.textContent, found]; }})()""")
        assert whole == "".join(pieces) == (word[:6000] if element.endswith("em") else word)
        assert 1 < len(pieces) < 10 and max(map(len, pieces)) <= 2000


def test_a_growing_text_is_read_as_the_whole_would_be(pages: Pages) -> None:
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
    })(""" + json.dumps(MIXED) + ")") == []


def test_code_that_grows_is_whole_and_coloured_in_the_end(pages: Pages, server: Scripted) -> None:
    lines = [f"value_{line} = {line}\n" for line in range(300)]
    server.scripts = [["```python\n", *lines, "```\n\nDone."]]
    page = pages()
    page.ask("Count")
    page.sees("128.0", ".stats")
    assert page.text(".prose pre").strip() == "".join(lines).strip()
    assert page.count(".prose pre .hljs-number") == len(lines)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out(pages: Pages, server: Scripted, *, dark: bool) -> None:
    code = ("```python\n@d\nclass A(B):\n    def f(self, y=None): return f'{y} a' + 1  # c\n```\n\n"
            "```diff\n- old\n+ new\n@@ -1 +1 @@\n```\n\n```css\n.a #b:hover { color: #fff; --x: 1px }\n```\n\n"
            "```html\n<!-- c --><a id='x'>t &amp; u</a>\n```\n\n```md\n# h\n*e* **s** [a](b) `c`\n> q\n- l\n```\n\n")
    text = ("# T\n\n*a* [b](https://b.example) ~~c~~ `d` <mark>e</mark> <kbd>f</kbd> $x^2$\n\n"
            "> q\n\n1. l\n\n|t|\n|-|\n|u|\n\n")
    server.scripts = [[{"reasoning_content": "Hm."}, text + code], [InvalidRequest("this is too long")]]
    page = pages(dark=dark)
    page.ask("Hi")
    page.until("document.querySelector('.stats') && document.querySelector('.katex')")
    page.click(".thought button")
    page.ask("More")
    page.sees("This is too long.", "[role=alert]")
    page.until("document.querySelector('.models select')")
    assert page.js(FAINT) == []
    page.label("Settings")
    page.type("[", "textarea[name=tools]")
    page.sees("not JSON", "dialog")
    assert page.js(FAINT) == []
    assert all("400" in each for each in page.problems)
    page.problems.clear()


def test_reasoning_can_be_read_while_it_grows(pages: Pages, server: Scripted) -> None:
    more, end = threading.Event(), threading.Event()
    steps = [{"reasoning_content": f"step {number}\n\n"} for number in range(60)]
    server.scripts = [[*steps[:40], more, *steps[40:], end, "Done."]]
    page = pages()
    page.ask("Think")
    inner = "document.querySelector('.thought .inner')"
    left = f"(({{scrollHeight, scrollTop, clientHeight}}) => scrollHeight - scrollTop - clientHeight)({inner})"
    page.sees("step 39", ".thought")
    page.until(f"{left} < 1")
    page.wheel(".thought .inner", -50)
    page.until(f"{left} > 40")
    top = page.js(f"{inner}.scrollTop")
    more.set()
    page.sees("step 59", ".thought")
    assert page.js(f"{inner}.scrollTop") == top
    page.wheel(".thought .inner", 5000)
    page.until(f"{left} < 1")
    end.set()
    page.sees("Done.", ".prose")


def test_a_long_chat_opens_at_its_end_and_goes_on_there(pages: Pages, server: Scripted) -> None:
    page = pages()
    left = "(({scrollHeight, scrollTop, clientHeight}) => scrollHeight - scrollTop - clientHeight)" \
           "(document.querySelector('.conversation'))"
    page.js("""(async () => {
        const { add, conversation, path } = await import("./ui/tree.js"), { keep } = await import("./ui/answering.js");
        const tree = Object.assign(conversation(), {title: "Long"});
        for (let count = 0, parent = "root"; count < 600; count++) {
            const [role, text] = count % 2 ? ["assistant", `## Answer ${count}\\n\\n- a`] : ["user", "Question"];
            parent = add(tree, parent, {role, text, files: [], calls: [], thought: "", finish: "stop", error: null}).id;
        }
        await keep(tree);
    })()""")
    page.label("Long")
    page.until("document.querySelectorAll('article').length === 600")
    page.until(f"{left} < 1")
    assert page.box("article:last-of-type")[3] <= page.box(".foot")[1]
    page.ask("More")
    page.sees("Hello.", "article:last-of-type")
    page.until(f"{left} < 1 && document.querySelectorAll('.stats').length")
    assert len(server.asked[0]["messages"]) == 601
