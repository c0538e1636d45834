"""Lark grammars as regular expressions: both take the same texts."""
from __future__ import annotations

from itertools import pairwise

import pytest
from llguidance import regex_to_lark
from test_forced_calls import drawn, taken

from zonda.text.regular import LONGEST, expression

PATCH = r'''start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?
filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
'''
GRAMMARS = [
    PATCH, 'start: "a" | "b" "c"*', 'start: ("x" "y"?)+ // pairs\n', 'start: A{2,3} B{2} C{,2} D{1,}\nA: "a"\n'
    'B: "b"\nC: "c"\nD: "d"',
    'start: word (" " word)* "."\nword: LETTER+ | NUMBER\n%import common (LETTER, NUMBER)',
    'start: sum\nsum: INT (("+" | "-") INT)*\n%import common.INT\n'
    '%import common.WS_INLINE -> BLANK\n%ignore BLANK',
    'start: "select"i " " NAME (", " NAME)*\nNAME: ("a".."f" | "_")+',
    '?start: /[^\\/"\\n]+\\// LINE\nLINE: /[0-9]{3}x.y/s',
    'start: open [ "-" ] close\nopen: "<\\n"\nclose: "\\"é>"\n# the end\n']


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_both_take_the_same_texts(grammar: str) -> None:
    made = expression(grammar)
    assert made is not None
    alone = f"start: /{regex_to_lark(made, 'd')}/"
    texts, others = ([drawn(each, seed) for seed in range(6)] for each in (grammar, alone))
    assert any(texts) and all(taken(alone, text) for text in texts if text)
    assert any(others) and all(taken(grammar, text) for text in others if text)


@pytest.mark.parametrize("grammar", [
    'start: "(" start ")" | "a"', "start: a\na: b\nb: a | /x/", "start: nowhere", "begin: /x/", "start: (", "start: )",
    "start: A & B\nA: /a/\nB: /a/", "start: <|end|>", 'start: %json {"type": "string"}',
    "%import other.X\nstart: X",
    "start[lazy]: /a/", 'start: "a".."bc"', 'start: "\\q"', "", "x", "%import common.NOTHING\nstart: NOTHING",
    "start: a\n" + "".join(f"{one}: {two} {two}\n" for one, two in pairwise("abcdefghijklmnopqrstuvwxyz")) + "z: /z/"])
def test_what_is_no_regular_grammar_has_no_expression(grammar: str) -> None:
    assert expression(grammar) is None


def test_deep_and_long_grammars_end_soon() -> None:
    assert expression("start: " + "(" * 100_000) is None
    assert expression("start: " + "(" * 1000 + '"a"' + ")" * 1000) is None
    assert expression("start: " + '"a" ' * LONGEST) is None
    assert expression("start: " + '"a" | ' * LONGEST + '"a"') is None
    assert expression("start: " + '"\\"' * (LONGEST // 4)) is None
