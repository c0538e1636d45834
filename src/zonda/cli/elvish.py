"""Completion for Elvish, beside the shells that click knows."""
from __future__ import annotations

from typing import Any

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class

from zonda.environment import words_to_complete

SOURCE = r"""
use str

set edit:completion:arg-completer[%(prog_name)s] = {|@words|
  for line [(e:env %(complete_var)s=elvish_complete COMP_WORDS=(str:join "\n" $words) %(prog_name)s)] {
    var kind value help = (str:split "\t" $line)
    if (eq $kind plain) {
      edit:complex-candidate $value &code-suffix=' ' &display=(str:trim-right $value'  '$help ' ')
    } else {
      edit:complete-filename $words[-1]
    }
  }
}
"""


@add_completion_class
class ElvishComplete(ShellComplete):
    """One line a candidate, of its kind, value and help with tabs between them."""

    name = "elvish"
    source_template = SOURCE

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one to complete, and that."""
        _, *args, incomplete = words_to_complete()
        return args, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A line that the script reads."""
        return "\t".join((item.type, item.value, " ".join((item.help or "").split())))
