"""What other servers' requests ask for and is not offered here: refused, as the answer would be another one."""
from __future__ import annotations

from zonda.errors import Unsupported
from zonda.server.schema import SamplingFields

_RUNS = "tools are run by the client, none by the server"
_WHY = {"adapter": "adapters are not supported", "web_search_options": f"there is no web search: {_RUNS}",
        "files": f"answers make no files: {_RUNS}", "enable_code_execution": _RUNS, "enable_shell": _RUNS,
        "moderation": "nothing is moderated", "thread": "no messages are kept; send them all",
        "compaction": "ask for a summary by a message of the user"}
"""Field -> why it is not there."""


def check_offered(body: SamplingFields) -> None:
    """Refuse a request for one of these; a search that may look nothing up is none."""
    for field, why in _WHY.items():
        asked = getattr(body, field, None)
        offline = isinstance(asked, dict) and asked.get("external_web_access") is False
        if (asked or asked == {}) and not offline:
            raise Unsupported(f"`{field}` is not offered: {why}", param=field)
