"""Plans made of plans: one over a list in another order, one whose windows are judged by more rounds, many in step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from copy import copy

from rankpipe.rerank.plans.plan import AsShown, Ballot, Plan, Planner, Round, Windows, voted

Answers = Generator[Round, Windows, Windows]


def ask(windows: Sequence[Sequence[int]], order: list[int]) -> Answers:
    """One round; a window that is there twice is asked once."""
    once = list(dict.fromkeys(map(tuple, windows)))
    replies = yield Round([list(window) for window in once], order)
    said = dict(zip(once, replies, strict=True))
    return [said[tuple(window)] for window in windows]


def judged(inner: Plan, judge: Callable[[Round], Answers]) -> Plan:
    """A plan each of whose rounds is answered by ``judge``, which may ask for other rounds in its place."""
    replies: Windows | None = None
    while True:
        try:
            asked = inner.send(replies)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as done:
            order: list[int] = done.value
            return order
        replies = yield from judge(asked)


def over(plan: Planner, order: Sequence[int]) -> Plan:
    """The plan for a list that stands in this order: its own positions are places in it."""
    place = {p: i for i, p in enumerate(order)}

    def judge(asked: Round) -> Answers:
        windows = [[order[i] for i in window] for window in asked.windows]
        replies = yield Round(windows, [order[i] for i in asked.order])
        return [_placed(reply) for reply in replies]

    def _placed(reply: list[int]) -> list[int]:
        made = copy(reply)  # a ballot stays one
        made[:] = [place[p] for p in reply]
        return made

    found = yield from judged(plan(len(order)), judge)
    return [order[i] for i in found]


def together(plans: Sequence[Plan], so_far: list[int]) -> Answers:
    """Many plans over one list, in step: all their windows that wait are one round.

    :param so_far: the order to end with at any time.
    :return: one ballot for each plan, but for those that were refused a window: they know half of what they would say.
        It names those that any reply named, in the plan's order.
    """
    orders: dict[int, list[int]] = {}
    named: list[set[int]] = [set() for _ in plans]
    replies: dict[int, Windows | None] = dict.fromkeys(range(len(plans)))
    while replies:
        asked: dict[int, Windows] = {}
        for i, reply in replies.items():
            try:
                asked[i] = plans[i].send(reply).windows  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as done:
                orders[i] = done.value
        said = iter((yield from ask([w for windows in asked.values() for w in windows], so_far)) if asked else [])
        heard = {i: [next(said) for _ in windows] for i, windows in asked.items()}
        replies = {i: told for i, told in heard.items() if not any(isinstance(one, AsShown) for one in told)}
        for i, told in heard.items():
            named[i].update(p for one in told if len(one) > 1 for p in voted(one))
    return [_ballot(orders[i], named[i]) for i in sorted(orders)]


def _ballot(order: list[int], named: set[int]) -> Ballot:
    return Ballot(sorted(order, key=lambda p: p not in named), len(named))
