"""A conversation with the alphabet, slow enough to be stopped; run as a program on a terminal of its own."""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from letters import LettersRunner, LettersTemplate, LettersTokenizer, letters_engine

from zonda import LLM, Sampling
from zonda.cli.repl import converse
from zonda.options import RunOptions


class Slow(LettersRunner):
    """Soon answers, but hesitates in the middle of the alphabet."""

    def run(self, batch):
        letters = LettersTokenizer().decode(batch.tokens[batch.sample])
        time.sleep(2 if "d" <= letters <= "s" else 0.02)
        return super().run(batch)


with LLM.from_parts(letters_engine(Slow()), LettersTokenizer(), LettersTemplate(), name="letters") as llm:
    converse(llm, RunOptions(), Sampling(temperature=0.0))
print("left")
