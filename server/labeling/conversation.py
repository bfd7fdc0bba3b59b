"""One group's exchange with the model: the question, and a second one when it is needed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from server.labeling import prompts
from server.labeling.client import Answer, Failure, ModelClient
from server.labeling.replies import Fault, Reply, Wanted, fields_text, parse_reply, response_format
from server.labeling.samples import Sample

MAX_REPEATED_CHARS: Final = 4_000
"""Of an answer that cannot be used, the model is shown so much again."""

_log = logging.getLogger(__name__)


def question(
    texts: Sequence[Sample], literals: Mapping[str, str], wanted: Wanted
) -> list[dict[str, str]]:
    """Write the messages that ask for one group's name."""
    told = prompts.NOTES.format(notes=_as_data(literals)) if literals else ""
    documents = "[\n" + ",\n".join(_as_data(sample) for sample in texts) + "\n]"
    return [
        {"role": "system", "content": prompts.SYSTEM.format(fields=fields_text(wanted))},
        {"role": "user", "content": prompts.USER.format(notes=told, documents=documents)},
    ]


async def ask_for_reply(
    client: ModelClient, messages: list[dict[str, str]], wanted: Wanted
) -> Reply | Fault | Failure:
    """Ask, and once more when the answer cannot be used. Never raises."""
    try:
        shape = response_format(wanted)
        answer = await client.ask(messages, shape)
        checked = _checked(answer, wanted)
        if not isinstance(checked, Fault) or not isinstance(answer, Answer) or answer.refusal:
            return checked
        repeated = [*messages, *_second_question(answer, checked, wanted)]
        return _checked(await client.ask(repeated, shape), wanted)
    except Exception as error:
        _log.exception("a group could not be named")
        return Failure("request", f"unexpected {type(error).__name__}", "see the server's log")


def _checked(answer: Answer | Failure, wanted: Wanted) -> Reply | Fault | Failure:
    if isinstance(answer, Failure):
        return answer
    if answer.refusal:
        return Fault("the model refused")
    return parse_reply(answer.content, wanted)


def _second_question(answer: Answer, fault: Fault, wanted: Wanted) -> list[dict[str, str]]:
    again = prompts.AGAIN.format(fault=fault.why, fields=fields_text(wanted))
    asked = {"role": "user", "content": again}
    if not answer.content or not answer.content.strip():  # Some providers refuse empty turns.
        return [asked]
    return [{"role": "assistant", "content": answer.content[:MAX_REPEATED_CHARS]}, asked]


def _as_data(texts: Mapping[str, str]) -> str:
    """Write texts as JSON that can neither end its string nor the block it stands in."""
    written = json.dumps(texts, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return written.encode("utf-8", "replace").decode()  # Lone surrogates cannot be sent.
