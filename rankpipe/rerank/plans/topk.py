"""Find the best k with a referee who can only tell the best of a few: heap sort and bubble sort, as plans.

All matches that do not wait for each other are one round, and a referee is asked no match twice. What is found, and
after how many matches, is the same as in the textbooks' loops.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from rankpipe.rerank.plans.plan import Plan, Round, Windows

Referee = Callable[[Windows, list[int]], Plan]  # takes groups, and the order so far; gives the best of each group


def heap(n: int, k: int, fan: int, best: Referee) -> Plan:
    """The best k by heap sort, each node with ``fan`` children; the others behind them in their old order.

    The heap is built level by level, all nodes of a level at once, and ended early this is the plan for a smaller k.
    Of equals the earlier one is taken: families are shown in their old order, where the textbooks' loop shows the
    parent first, so that the last of all, put on top when the best is taken, would stay there by every doubt.
    """
    tree, taken = list(range(n)), list[int]()
    for level in reversed(list(_levels(n, fan))):
        yield from _sink(tree, list(level), fan, best, list(range(n)))
    while tree and len(taken) < k:
        taken.append(tree[0])
        last = tree.pop()
        if tree and len(taken) < k:
            tree[0] = last
            yield from _sink(tree, [0], fan, best, [*taken, *sorted(tree)])
    return [*taken, *sorted(set(range(n)).difference(taken))]


def heap_matches(n: int, k: int, fan: int) -> int:
    """The most matches that :func:`heap` takes: every sift goes down to the leaves."""
    build = sum(_height(n, node, fan) for node in range(n))
    return build + sum(_height(n - taken, 0, fan) for taken in range(1, min(k, n)))


def bubble(n: int, k: int, fan: int, best: Referee) -> Plan:
    """The best k by bubble sort: ``k`` passes from the bottom up, in each match one meets the ``fan`` above it.

    A pass may begin when the one before it is two matches ahead: they never touch, so that k passes take n / fan + 2k
    rounds and not k times n / fan. The others stay where the bubbles left them.
    """
    order = list(range(n))
    passes = [list(_matches(n, top, fan)) for top in range(min(k, n - 1))]
    for time in range(max((2 * i + len(matches) for i, matches in enumerate(passes)), default=0)):
        spans = [matches[time - 2 * i] for i, matches in enumerate(passes) if 0 <= time - 2 * i < len(matches)]
        winners = yield from best([order[start:end] for start, end in spans], order[:])
        for (start, _), winner in zip(spans, winners, strict=True):
            found = order.index(winner)
            order[start], order[found] = order[found], order[start]
    return order


def bubble_matches(n: int, k: int, fan: int) -> int:
    """The most matches that :func:`bubble` takes: all of every pass are new."""
    return sum(-(-(n - 1 - top) // fan) for top in range(min(k, n - 1)))


def insertion(n: int, k: int, fan: int, best: Referee) -> Plan:
    """The best k by insertion: the first k are sorted, and of the others those come in that beat the last of these.

    In each match the last one meets the next ``fan`` others. Where one of them is best, its place is found by halves,
    the last one drops out, and the rest of the ``fan`` meet the new last one. Dropped ones stand behind the k, the last
    to go first; then those that never came in, in their old order.
    """
    k = min(k, n)
    top = yield from heap(k, k, fan, lambda groups, order: best(groups, [*order, *range(k, n)]))
    dropped = list[int]()
    for start in range(k, n, fan):
        waiting = list(range(start, min(start + fan, n)))
        while waiting:
            behind = [*dropped[::-1], *(i for i in range(k, n) if i not in {*top, *dropped})]
            [winner] = yield from best([[top[-1], *waiting]], [*top, *behind])
            if winner == top[-1]:
                break
            low, high = 0, k - 1
            while low < high:
                middle = (low + high) // 2
                [better] = yield from best([[top[middle], winner]], [*top, *behind])
                low, high = (low, middle) if better == winner else (middle + 1, high)
            waiting.remove(winner)
            dropped.append(top.pop())
            top.insert(low, winner)
    return [*top, *dropped[::-1], *(i for i in range(k, n) if i not in {*top, *dropped})]


def insertion_matches(n: int, k: int, fan: int) -> int:
    """The most matches that :func:`insertion` takes: every one of the others comes in."""
    k = min(k, n)
    return heap_matches(k, k, fan) + (n - k) * (1 + (k - 1).bit_length()) if k else 0


def _sink(
    tree: list[int], nodes: list[int], fan: int, best: Referee, order: list[int]
) -> Generator[Round, Windows, None]:
    """Let what stands at these nodes, none of them above another, sink to where it is better than all below it."""
    while nodes := [node for node in nodes if fan * node + 1 < len(tree)]:
        families = [sorted([tree[node], *tree[fan * node + 1 : fan * node + 1 + fan]]) for node in nodes]
        winners = yield from best(families, order)
        places = [tree.index(winner) for winner in winners]
        for node, place in zip(nodes, places, strict=True):
            tree[node], tree[place] = tree[place], tree[node]
        nodes = [place for node, place in zip(nodes, places, strict=True) if place != node]


def _levels(n: int, fan: int) -> Iterator[range]:
    level = range(min(n, 1))
    while level:
        yield level
        level = range(fan * level.start + 1, min(fan * level.stop + 1, n))


def _height(n: int, node: int, fan: int) -> int:
    """How many matches lie on the longest way down from a node of a heap of n."""
    steps = 0
    while (node := fan * node + 1) < n:
        steps += 1
    return steps


def _matches(n: int, top: int, fan: int) -> Iterator[tuple[int, int]]:
    """The spans of one pass up to ``top``, each sharing its first place with the next one's last."""
    for end in range(n, top + 1, -fan):
        yield max(end - fan - 1, top), end
