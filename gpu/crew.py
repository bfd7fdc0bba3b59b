"""Who keeps which part of a matrix, and what happens when a keeper is lost.

The first member is the asking process itself, which cannot be lost. A member that is gone, or
fails for another reason than the data, is left out from then on, and its parts go to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gpu.parts import Frame, PartSource, Totals


def keeper_of(number: int, n_parts: int, n_members: int) -> int:
    """Say which member keeps a part: neighbours together, all about as many."""
    return number * n_members // n_parts


class MemberLostError(Exception):
    """A member does not answer any more."""


class Member(Protocol):
    """A process that keeps parts."""

    @property
    def name(self) -> str:
        """How people call it."""
        ...

    def ask(self, kind: str, *asked: Any) -> Callable[[], dict[int, Any]]:
        """Begin to ask a `PartKeeper`; what is given waits for the answer.

        That raises `MemberLostError` if there is none to come.
        """
        ...


class Keeper(Protocol):
    """Answers about parts, as `gpu.parts.PartKeeper` does."""

    def per_part(self, *asked: Any) -> dict[int, Any]:
        """Answer for each of some parts."""
        ...

    def totals(self, *asked: Any) -> dict[int, Any]:
        """Answer with the sum over some parts."""
        ...


class Oneself:
    """The asking process as a member; it works while it waits for its own answer."""

    name = "this worker"

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def ask(self, kind: str, *asked: Any) -> Callable[[], dict[int, Any]]:
        """See `Member`."""
        return lambda: getattr(self._keeper, kind)(*asked)


class Crew:
    """All parts, and the members that keep them.

    Parameters
    ----------
    sources : sequence of PartSource
    members : sequence of Member
        The first one cannot be lost.
    on_loss : callable
        Told in words which member was lost, and why.

    Attributes
    ----------
    frame : Frame or None
        Which all parts are brought into.
    """

    def __init__(
        self,
        sources: Sequence[PartSource],
        members: Sequence[Member],
        on_loss: Callable[[str], None],
    ) -> None:
        self.sources = list(sources)
        self.frame: Frame | None = None
        self._members = list(members)
        self._on_loss = on_loss
        self._kept: dict[int, list[int]] = {at: [] for at in range(len(members))}
        for number in range(len(sources)):
            self._kept[keeper_of(number, len(sources), len(members))].append(number)

    @property
    def n_points(self) -> int:
        """Count the rows of all parts."""
        return sum(source.n_rows for source in self.sources)

    def per_part(
        self, question: str, *details: Any, own: Mapping[int, tuple[Any, ...]] | None = None
    ) -> list[Any]:
        """Ask every part; the answers come in the order of the parts."""
        answers = self._ask("per_part", question, details, own or {})
        return [answers[number] for number in range(len(self.sources))]

    def total(
        self, question: str, *details: Any, own: Mapping[int, tuple[Any, ...]] | None = None
    ) -> Totals:
        """Ask every part for sums, and add them up."""
        first, *others = self._ask("totals", question, details, own or {}).values()
        total: Totals = sum(others, start=first)
        return total

    def _ask(
        self, kind: str, question: str, details: tuple[Any, ...], own: Mapping[int, tuple[Any, ...]]
    ) -> dict[int, Any]:
        answers: dict[int, Any] = {}
        answered: set[int] = set()
        while len(answered) < len(self.sources):
            waiting = []
            for at, kept in self._kept.items():
                if numbers := [number for number in kept if number not in answered]:
                    sources = {number: self.sources[number] for number in numbers}
                    mine = {number: own[number] for number in numbers if number in own}
                    asked = (sources, self.frame, question, details, mine)
                    waiting.append((at, numbers, self._members[at].ask(kind, *asked)))
            for at, numbers, answer in waiting:
                try:
                    answers |= answer()
                    answered.update(numbers)
                except MemberLostError as error:
                    self._on_loss(f"{self._members[at].name} was lost: {error}")
                    self._hand_over(self._kept.pop(at))
        return answers

    def _hand_over(self, parts: list[int]) -> None:
        """Give parts to those who keep fewest."""
        for number in parts:
            fewest = min(self._kept, key=lambda at: (len(self._kept[at]), at))
            self._kept[fewest].append(number)
