"""The commands of a conversation."""
import pytest

from zonda.cli.chat import Chat
from zonda.types import Sampling


@pytest.fixture
def chat() -> Chat:
    return Chat(Sampling(), system="Be brief.")


def test_turns_follow_the_system_message(chat: Chat) -> None:
    chat.ask("hi")
    chat.answered("hello")
    chat.ask("and?")
    assert [(each["role"], each["content"]) for each in chat.messages] == [
        ("system", "Be brief."), ("user", "hi"), ("assistant", "hello"), ("user", "and?")]


def test_a_question_without_an_answer_is_forgotten(chat: Chat) -> None:
    chat.ask("hi")
    chat.answered("")
    assert len(chat.messages) == 1


def test_clear_keeps_the_system_message(chat: Chat) -> None:
    chat.ask("hi")
    chat.command("/clear")
    assert [each["role"] for each in chat.messages] == ["system"]


def test_system_sets_and_removes_the_system_message(chat: Chat) -> None:
    chat.command("/system Be  long.")
    assert chat.messages[0]["content"] == "Be  long."
    chat.command("/system")
    assert chat.messages == []


@pytest.mark.parametrize(("line", "name", "value"), [
    ("/temperature 0.5", "temperature", 0.5), ("/topk 7", "top_k", 7), ("/topp 0.9", "top_p", 0.9),
    ("/topk 0", "top_k", 0),
])
def test_settings_change_the_sampling(chat: Chat, line: str, name: str, value: float) -> None:
    assert str(value) in chat.command(line)
    assert getattr(chat.sampling, name) == value


@pytest.mark.parametrize("line", ["/temperature 3", "/temperature x", "/temperature nan", "/topk -1", "/topk 1.5",
                                  "/topp 0", "/topp x"])
def test_wrong_settings_are_explained_and_change_nothing(chat: Chat, line: str) -> None:
    assert chat.command(line).startswith("expected")
    assert chat.sampling == Sampling()


def test_a_setting_alone_is_told(chat: Chat) -> None:
    chat.command("/topk 7")
    assert chat.command("/topk") == "top_k = 7"


def test_exit_leaves(chat: Chat) -> None:
    chat.command("/exit")
    assert chat.left


def test_help_names_every_command(chat: Chat) -> None:
    told = chat.command("/help")
    assert all(word in told for word in ("/help", "/clear", "/system", "/temperature", "/topk", "/topp", "/exit"))


def test_an_unknown_command_is_told(chat: Chat) -> None:
    assert "unknown command /quit" in chat.command("/quit now")
