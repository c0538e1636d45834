"""What the web UI keeps and takes in: conversations, drafts, files."""
from __future__ import annotations

import base64
import json

import pytest
from browser import Page, Pages
from ui_server import Scripted


@pytest.fixture
def server(script: Scripted) -> Scripted:
    """Each test writes its own scripts."""
    return script


def test_what_is_not_sent_is_kept_while_another_chat_is_open(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.ask("Apples")
    page.sees("Hello.")
    page.type("Half a thought", "#question")
    page.label("New chat")
    page.until("document.querySelector('#question').value === ''")
    page.click(".heads .open")
    page.until("document.querySelector('#question').value === 'Half a thought'")


def test_text_files_are_put_into_the_message(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.drop("notes.txt", "text/plain", b"a ``` b")
    page.sees("notes.txt", ".composer .files")
    page.ask("Sum up")
    page.sees("Hello.")
    assert server.asked[0]["messages"][0]["content"] == "File: notes.txt\n````\na ``` b\n````\n\nSum up"
    page.drop("noise.bin", "", bytes(range(4)))
    page.sees("noise.bin is not a text file.", ".notice")


def test_long_texts_are_pasted_as_files(pages: Pages, server: Scripted) -> None:
    page = pages()
    page.until("document.querySelector('#question').placeholder.startsWith('Ask')")
    page.js("""{
        const clipboardData = new DataTransfer();
        clipboardData.setData("text/plain", "x".repeat(20_000));
        const paste = new ClipboardEvent("paste", {clipboardData, bubbles: true});
        document.querySelector("#question").dispatchEvent(paste); }""")
    page.sees("pasted text", ".composer .files")
    page.ask("Sum up")
    page.sees("Hello.")
    assert server.asked[0]["messages"][0]["content"] == f"File: pasted text\n```\n{'x' * 20_000}\n```\n\nSum up"


def test_pictures_are_taken_where_the_model_sees(pages: Pages, server: Scripted) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    page = pages()
    page.drop("dot.png", "image/png", base64.b64decode(pixel))
    page.sees("This model takes no images", ".notice")
    server.cards[0]["capabilities"] = ["chat", "vision"]
    page.go(server.url + "/ui")
    page.drop("dot.png", "image/png", base64.b64decode(pixel))
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
    page.until("document.activeElement.innerText === 'Fruit'")
    page.press("Tab")
    page.press("Enter")
    page.until("document.activeElement.innerText === 'Rename'")
    page.press("Tab", shift=True)
    page.press("Tab", shift=True)
    page.until("!document.querySelector('.menu')")
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


def give(page: Page, text: str) -> None:
    """Choose a file to import."""
    page.label("Settings")
    page.until("document.querySelector('dialog input[type=file]')")
    page.js(f"""{{
        const files = new DataTransfer();
        files.items.add(new File([{json.dumps(text)}], "chats.json"));
        const input = document.querySelector("dialog input[type=file]");
        input.files = files.files;
        input.dispatchEvent(new Event("change", {{bubbles: true}})); }}""")


def test_exported_conversations_can_be_imported(pages: Pages, server: Scripted) -> None:
    nodes = {"a": {"id": "a", "parent": "root", "role": "user", "text": "Plums", "files": []},
             "b": {"id": "b", "parent": "a", "role": "assistant", "text": "Blue.", "thought": "", "calls": []}}
    chat = {"id": "one", "title": "Fruit", "updated": 2, "nodes": nodes, "chosen": {"root": "a", "a": "b"}}
    page = pages()
    give(page, json.dumps([chat, chat | {"id": "two", "title": "More"}]))
    page.sees("Imported 2 chats.", ".notices")
    page.label("More")
    page.sees("Blue.", ".answer")


@pytest.mark.parametrize("change", [
    {"nodes": {}}, {"nodes": {"a": {"id": "a", "parent": "a", "role": "user", "text": "x", "files": []}}},
    {"nodes": {"a": {"id": "a", "parent": "root", "role": "user", "text": 1, "files": []}}},
    {"nodes": {"a": {"id": "a", "parent": "root", "role": "user", "text": "x"}}}, {"nodes": 5}, {"title": None},
    {"chosen": {"root": "b"}}, {"updated": "now"}])
def test_files_that_are_no_export_are_refused(pages: Pages, change: dict[str, object]) -> None:
    nodes = {"a": {"id": "a", "parent": "root", "role": "user", "text": "Plums", "files": []}}
    page = pages()
    chat = {"id": "one", "title": "Fruit", "updated": 2, "nodes": nodes, "chosen": {"root": "a"}}
    give(page, json.dumps(chat | change))
    page.sees("This file holds no exported chats.", ".notices")
    assert page.count(".heads li") == 0
