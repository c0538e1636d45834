"""The whole way from a command line, or a constructor, to text, on a real small model."""
from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pydantic
import pytest

from zonda import LLM, AsyncLLM, ContextExceeded

pytestmark = pytest.mark.e2e
SMOLLM2 = "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FRANCE = "What is the capital city of France? Answer in one word."  # no token of the answer is a close call


@pytest.fixture(scope="module")
def llm(real_model: Callable[[str], Path]) -> LLM:
    path = real_model(SMOLLM2)
    with LLM(str(path), max_seq_len=512) as llm:
        yield llm


def zonda(*args: object, input: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from zonda.cli.main import main; main()", *map(str, args)]
    return subprocess.run(command, input=input, capture_output=True, text=True, timeout=120)


def test_it_knows_the_capital_of_france(llm: LLM) -> None:
    result = llm.chat(FRANCE, temperature=0, max_tokens=20)
    assert "Paris" in result.text and result.finish_reason == "stop"


def test_a_batch_gives_what_each_prompt_gives_alone(llm: LLM) -> None:
    prompts = ["Water boils at", "The sun rises in the", "One, two, three,"]
    alone = [llm.complete(prompt, temperature=0, max_tokens=16).tokens for prompt in prompts]
    assert [each.tokens for each in llm.complete(prompts, temperature=0, max_tokens=16)] == alone


def test_the_stream_adds_up_to_the_answer(llm: LLM) -> None:
    options = {"temperature": 0, "max_tokens": 24}
    whole = llm.chat("Name a colour.", **options).text
    assert "".join(chunk.text for chunk in llm.stream("Name a colour.", **options)) == whole


def test_log_probabilities_are_of_the_tokens_drawn(llm: LLM) -> None:
    result = llm.complete("The capital of France is", temperature=0, max_tokens=4, logprobs=3)
    assert [each.top[0][0] for each in result.logprobs] == list(result.tokens)
    assert all(each.logprob <= 0 for each in result.logprobs)


def test_text_survives_the_tokenizer(llm: LLM) -> None:
    text = "Grüße, 世界! 🙂\n  def f(x):"
    assert llm.detokenize(llm.tokenize(text)) == text


def test_a_prompt_beyond_the_context_is_refused(llm: LLM) -> None:
    with pytest.raises(ContextExceeded):
        llm.complete("word " * 600)


async def test_async_answers(real_model: Callable[[str], Path]) -> None:
    async with await AsyncLLM.load(str(real_model(SMOLLM2)), max_seq_len=512) as llm:
        assert "Paris" in (await llm.chat(FRANCE, temperature=0, max_tokens=20)).text


def test_run_answers_on_standard_output(real_model: Callable[[str], Path]) -> None:
    ran = zonda("run", "-m", real_model(SMOLLM2), "-i", "hi", "--max-tokens", "8")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() and "tok/s" in ran.stderr


def test_run_takes_a_file_alone_and_standard_input(real_model: Callable[[str], Path]) -> None:
    ran = zonda("run", "-f", real_model(SMOLLM2), "--temperature", 0, "--max-tokens", 20, input=FRANCE)
    assert "Paris" in ran.stdout, ran.stderr


def test_bench_measures(real_model: Callable[[str], Path]) -> None:
    ran = zonda("bench", "-m", real_model(SMOLLM2), "--prompt-len", 16, "--gen-len", 4, "--iterations", 1, "--json")
    assert [json.loads(line)["case"] for line in ran.stdout.splitlines()] == ["prefill", "decode"], ran.stderr


def test_an_answer_becomes_the_value_of_a_model(llm: LLM) -> None:
    class City(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=20)
        country: Literal["France", "Germany", "Japan"]
        people: int = pydantic.Field(ge=0, le=50_000_000)

    answer = llm.chat("Describe Paris.", schema=City, temperature=0, max_tokens=60)
    assert isinstance(answer.parsed, City) and answer.parsed.country == "France"


def test_choices_and_expressions_bind_a_real_model(llm: LLM) -> None:
    assert llm.chat("Is the sky blue? Answer yes or no.", choices=["yes", "no"], temperature=0).text in {"yes", "no"}
    date = r"\d{4}-\d{2}-\d{2}"
    assert re.fullmatch(date, llm.complete("The date is ", regex=date, temperature=1.5, seed=1).text)


def test_run_answers_by_a_schema(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "object", "properties": {"answer": {"enum": ["Paris", "Rome"]}},
                                "required": ["answer"], "additionalProperties": False}))
    ran = zonda("run", "-m", real_model(SMOLLM2), "-i", FRANCE, "--json-schema", file)
    assert ran.returncode == 0 and json.loads(ran.stdout)["answer"] in {"Paris", "Rome"}, ran.stderr
