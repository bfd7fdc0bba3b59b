"""Naming all groups of a run by a model: the one call that the pipeline makes.

Never fails a run: a group that gets no usable reply keeps a fallback name, and the report
says why. Each group is asked for on its own, so its documents touch no other group's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypedDict

from server.labeling import prompts
from server.labeling.cache import LabelCache, content_key
from server.labeling.client import Failure, ModelClient, Usage
from server.labeling.conversation import ask_for_reply, question
from server.labeling.naming import GroupName, fallback_name, unique_names
from server.labeling.replies import Fault, Reply, Wanted
from server.labeling.samples import Sample, notes
from server.labeling.settings import LabelingSettings, Provider, infer_provider

if TYPE_CHECKING:
    from server.labeling.request import LLMLabeling

GIVE_UP_AFTER: Final = 5
"""Groups that fail one after another, none succeeding between, before the rest is spared."""

NAMED_GROUPS: Final = 20
"""Groups named in one error line; of further ones it says how many."""

Progress = Callable[[int, int | None], None]


class LabelingUsage(TypedDict):
    """What naming took. `cost_usd` is None where the model's price is not known."""

    prompt_tokens: int
    completion_tokens: int
    requests: int
    cached: int
    cost_usd: float | None


@dataclass(frozen=True)
class LabelingReport:
    """The names of all groups, and how they came about.

    Attributes
    ----------
    names : list of GroupName
        One for each group, labels unique ignoring case.
    errors : list of str
        One line for each error, with the groups it hit; any makes the run end with errors.
    warnings : list of str
        What was odd, but is no failure of the model.
    usage : LabelingUsage
        Tokens, HTTP requests (retries included), groups named from the cache, cost.
    """

    names: list[GroupName]
    errors: list[str]
    warnings: list[str]
    usage: LabelingUsage


def label_groups(
    samples_by_group: Sequence[Sequence[Sample]],
    config: LLMLabeling,
    settings: LabelingSettings,
    *,
    words: Sequence[Sequence[str]] | Callable[[], Sequence[Sequence[str]]] = (),
    group_ids: Sequence[str] | None = None,
    cache: LabelCache | None = None,
    progress: Progress | None = None,
) -> LabelingReport:
    """Ask the model for the name of each group.

    Call it from a thread that runs no event loop.

    Parameters
    ----------
    samples_by_group : sequence of sequences of Sample
        The documents shown for each group. A group without any text is not asked for.
    config : LLMLabeling
        The job's labeling; must be enabled.
    settings : LabelingSettings
        Providers, patience, prices.
    words : sequence of sequences of str, or callable
        Distinctive words of each group's documents, best first (``gpu.keywords``): fallback
        labels, fallback keywords, and what tells equal labels apart. A callable is asked for
        them once the model has answered.
    group_ids : sequence of str, optional
        What errors call the groups; ``cl_0``, ``cl_1``, … when absent.
    cache : LabelCache, optional
        Used unless the job's ``cache_ttl_seconds`` is 0.
    progress : callable, optional
        ``progress(n_done, n_groups)`` after each group.
    """
    n_groups = len(samples_by_group)
    ids = list(group_ids) if group_ids is not None else [f"cl_{i}" for i in range(n_groups)]
    work = _Naming(samples_by_group, config, settings, cache, progress)
    work.run()
    words = words() if callable(words) else words
    names = []
    for position in range(n_groups):
        reply = work.replies.get(position)
        if reply is None:
            names.append(fallback_name(position, words, config.include_keywords))
        else:
            own = tuple(words[position]) if position < len(words) else ()
            keywords = reply.keywords or own if config.include_keywords else ()
            names.append(GroupName(reply.label, reply.summary, keywords))
    return LabelingReport(
        names=unique_names(names, words),
        errors=[hit.line(why, ids) for why, hit in work.errors.items()],
        warnings=work.warnings(ids),
        usage=work.usage(),
    )


def _groups(positions: Sequence[int], ids: Sequence[str]) -> str:
    named = ", ".join(ids[position] for position in sorted(positions)[:NAMED_GROUPS])
    more = len(positions) - NAMED_GROUPS
    told = f"{named} and {more:,} more" if more > 0 else named
    return f"{'group' if len(positions) == 1 else 'groups'} {told}"


@dataclass
class _Hit:
    """The groups that one error hit, and what was told the first time."""

    detail: str = ""
    positions: list[int] = field(default_factory=list)

    def line(self, why: str, ids: Sequence[str]) -> str:
        """Write the error's line."""
        told = f"{why}: {self.detail}" if self.detail else why
        return f"{told}: {_groups(self.positions, ids)}"


@dataclass
class _Naming:
    """One run's naming, under way."""

    samples: Sequence[Sequence[Sample]]
    config: LLMLabeling
    settings: LabelingSettings
    cache: LabelCache | None
    progress: Progress | None
    replies: dict[int, Reply] = field(default_factory=dict)
    errors: dict[str, _Hit] = field(default_factory=dict)
    n_cached: int = 0
    _empty: list[int] = field(default_factory=list)
    _spared: list[int] = field(default_factory=list)
    _keys: dict[int, str] = field(default_factory=dict)
    _spent: Usage = field(default_factory=Usage)
    _stopped_by: str | None = None
    _failed_in_a_row: int = 0

    def __post_init__(self) -> None:
        self.model = self.settings.model(self.config.model_name)
        self.provider_name = infer_provider(self.config.provider, self.model)
        self.provider = self.settings.provider(self.provider_name)
        self.wanted = Wanted(self.config.include_summary, self.config.include_keywords)
        if self.config.cache_ttl_seconds == 0:
            self.cache = None

    def run(self) -> None:
        """Fill `replies` from the cache and the model, and `errors` with what failed."""
        pending = [position for position in range(len(self.samples)) if self._is_open(position)]
        most = self.settings.max_groups
        pending, self._spared = pending[:most], pending[most:]
        if not pending:
            return
        if self.provider is None:
            self._note(f"{self.provider_name} is not configured on this server", "", pending)
            return
        asyncio.run(self._ask_all(self.provider, pending))
        if self.cache is not None:
            self.cache.sweep()

    def warnings(self, ids: Sequence[str]) -> list[str]:
        """Say which groups were not asked for, though nothing failed."""
        told = []
        if self._empty:
            why = "no text to read, so no model was asked"
            told.append(f"llm_labeling: {why}: {_groups(self._empty, ids)}")
        if self._spared:
            why = f"this server asks for {self.settings.max_groups:,} groups a run at most"
            told.append(f"llm_labeling: {why}, not asked: {_groups(self._spared, ids)}")
        return told

    def usage(self) -> LabelingUsage:
        """Add up what was spent."""
        spent, price = self._spent, self.settings.prices.get(self.model)
        cost_usd = price.cost_usd(spent.prompt_tokens, spent.completion_tokens) if price else None
        return LabelingUsage(
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            requests=spent.requests,
            cached=self.n_cached,
            cost_usd=cost_usd if spent.requests else 0.0,
        )

    def _is_open(self, position: int) -> bool:
        """Settle a group without asking where that can be done."""
        texts = [sample for sample in self.samples[position] if sample]
        if not texts:
            self._empty.append(position)
            return False
        if self.cache is None:
            return True
        key = self._keys[position] = self._key(texts)
        reply = self.cache.get(key, self.wanted, self.config.cache_ttl_seconds)
        if reply is None:
            return True
        self.replies[position] = reply
        self.n_cached += 1
        return False

    def _key(self, texts: Sequence[Sample]) -> str:
        return content_key(
            {
                "provider": self.provider_name,
                "address": self.provider.base_url if self.provider else None,
                "model": self.model,
                "prompt_version": prompts.PROMPT_VERSION,
                "messages": self._messages(texts),
                "parameters": self.config.parameters,
                "summary": self.wanted.summary,
                "keywords": self.wanted.keywords,
            }
        )

    async def _ask_all(self, provider: Provider, pending: list[int]) -> None:
        self._tell()
        client = ModelClient(provider, self.model, self.settings, self.config.parameters)
        self._spent = client.usage
        if (failure := client.open()) is not None:
            self._note(f"{self._who}: {failure.why}", failure.detail, pending)
            return
        try:
            # The first goes alone: it finds a wrong key, or a provider without schemas.
            await self._ask_group(client, pending[0])
            queue = iter(pending[1:])
            n_workers = min(self.settings.concurrency, len(pending))
            await asyncio.gather(*(self._work(client, queue) for _ in range(n_workers)))
        finally:
            await client.close()

    async def _work(self, client: ModelClient, queue: Iterator[int]) -> None:
        for position in queue:
            await self._ask_group(client, position)

    async def _ask_group(self, client: ModelClient, position: int) -> None:
        if self._stopped_by is not None:
            self._note(self._stopped_by, "", [position])
            return
        texts = [sample for sample in self.samples[position] if sample]
        outcome = await ask_for_reply(client, self._messages(texts), self.wanted)
        if isinstance(outcome, Reply):
            self._failed_in_a_row = 0
            self.replies[position] = outcome
            if self.cache is not None:
                self.cache.put(self._keys[position], outcome, self.config.cache_ttl_seconds)
        else:
            self._note_failure(position, outcome)
        self._tell()

    def _note_failure(self, position: int, outcome: Fault | Failure) -> None:
        if isinstance(outcome, Fault):  # The provider is well; the next group may fare better.
            self._failed_in_a_row = 0
            self._note(f"{self._who}: the answer could not be used", outcome.why, [position])
            return
        why = f"{self._who}: {outcome.why}"
        self._note(why, outcome.detail, [position])
        self._failed_in_a_row += 1
        if outcome.kind == "settings":
            self._stopped_by = why
        elif self._failed_in_a_row >= GIVE_UP_AFTER and self._stopped_by is None:
            self._stopped_by = f"{self._who}: not asked after {GIVE_UP_AFTER} failures in a row"

    def _note(self, why: str, detail: str, positions: Sequence[int]) -> None:
        self.errors.setdefault(why, _Hit(detail)).positions.extend(positions)

    @property
    def _who(self) -> str:
        return f"{self.provider_name} ({self.model})"

    def _messages(self, texts: Sequence[Sample]) -> list[dict[str, str]]:
        return question(texts, notes(self.config), self.wanted)

    def _tell(self) -> None:
        if self.progress is not None:
            n_failed = sum(len(hit.positions) for hit in self.errors.values())
            n_done = len(self.replies) + len(self._empty) + len(self._spared) + n_failed
            self.progress(n_done, len(self.samples))
