"""The loss of a reply's tokens, sums of losses, and losses in recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rankpipe import recipe
from rankpipe.errors import RecipeError
from rankpipe.train import losses
from tests.train.lists import learned, lists, torch

pytestmark = pytest.mark.usefixtures("one_thread")
transformers: Any = pytest.importorskip("transformers")
close = torch.testing.assert_close


def reply(dtype: Any = None) -> tuple[Any, Any]:
    """Logits (2, 9, 50), and tokens of which the last 4, or 2 and then padding, are learned."""
    logits = torch.randn(2, 9, 50, generator=torch.Generator().manual_seed(1), dtype=dtype)
    tokens = torch.arange(18).reshape(2, 9)
    tokens[:, :5] = -100
    tokens[1, 7:] = -100
    return logits.requires_grad_(), tokens


def test_it_is_the_models_own_loss(tiny_lm: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_lm).train()
    ids = torch.randint(0, 200, (3, 12), generator=torch.Generator().manual_seed(2))
    tokens = ids.masked_fill(torch.arange(12) < 7, -100)
    tokens[2, 9:] = -100
    own = model(input_ids=ids, labels=tokens)
    [expected] = torch.autograd.grad(own.loss, [model.lm_head.weight])
    value = losses.PermutationLM()(model(input_ids=ids).logits, tokens)
    [gradient] = torch.autograd.grad(value, [model.lm_head.weight])
    close(value, own.loss)
    close(gradient, expected)


def test_tokens_count_once_each() -> None:
    logits, tokens = reply()
    value = losses.PermutationLM()(logits, tokens)
    value.backward()
    logs = logits.detach().log_softmax(-1)
    each = [-logs[i, t - 1, tokens[i, t]] for i, n in enumerate([4, 2]) for t in range(5, 5 + n)]
    close(value, sum(each) / 6)
    foretelling = torch.zeros(2, 9, dtype=torch.bool)
    foretelling[0, 4:8] = foretelling[1, 4:6] = True
    assert logits.grad[foretelling].any(-1).all()
    assert not logits.grad[~foretelling].any()
    total, count = losses.PermutationLM().total(logits, tokens)
    assert count == 6
    close(total / count, value)


def test_a_batch_without_a_reply_costs_nothing() -> None:
    logits, tokens = reply()
    value = losses.PermutationLM()(logits, tokens.fill_(-100))
    value.backward()
    assert value == 0
    assert not logits.grad.any()


def test_only_the_reply_is_made_single_precision() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float32:
                Sizes.largest = max(Sizes.largest, out.numel())
            return out

    logits, tokens = reply(torch.bfloat16)
    with Sizes():
        value = losses.PermutationLM()(logits, tokens)
        value.backward()
    assert value.dtype == torch.float32
    assert Sizes.largest == 6 * 50
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses.PermutationLM()(logits, tokens), value)
    close(losses.PermutationLM()(logits.float(), tokens), value)


def test_first_is_the_sum_of_its_parts() -> None:
    scores, labels, mask = lists(3, ties=False)
    logits, tokens = reply()
    loss = losses.first_loss(weight=7)
    parts = loss.parts(scores, labels, mask, logits, tokens)
    assert parts["lm"] == losses.PermutationLM()(logits, tokens)
    assert parts["ranknet"] == losses.WeightedRankNet()(scores, labels, mask)
    close(loss(scores, labels, mask, logits, tokens), parts["lm"] + 7 * parts["ranknet"])
    with pytest.raises(ValueError, match="lm: a loss of the reply's tokens needs logits and tokens"):
        loss(scores, labels, mask)


def test_parts_of_a_batch_are_put_together_loss_by_loss() -> None:
    """One counts tokens, the other lists: no weighted sum of both has one number to divide by."""
    scores, labels, mask = lists(3, ties=False)
    logits, tokens = reply()
    loss = losses.first_loss(weight=7)
    halves = [slice(0, 1), slice(1, None)]
    parts = [loss.total(scores[h], labels[h], mask[h], logits[h], tokens[h]) for h in halves]
    made = {n: sum(p[n][0] for p in parts) / sum(p[n][1] for p in parts) for n in ("lm", "ranknet")}
    close(loss(scores, labels, mask, logits, tokens), made["lm"] + 7 * made["ranknet"])
    assert parts[0]["lm"][1] != parts[0]["ranknet"][1]


def test_a_sum_without_a_reply_is_called_as_any_loss() -> None:
    scores, labels, mask = lists(4, ties=True)
    loss = losses.Sum({"order": losses.RankNet(), "top": losses.ListNet()}, {"top": 0.1})
    value, gradient = learned(loss, scores, labels, mask)  # type: ignore[arg-type]
    ranknet, listnet = (learned(part, scores, labels, mask) for part in (losses.RankNet(), losses.ListNet()))
    close(value, ranknet[0] + 0.1 * listnet[0])
    close(gradient, ranknet[1] + 0.1 * listnet[1])


def test_a_recipe_names_losses_and_their_numbers() -> None:
    tree = {
        "use": "sum",
        "losses": {"lm": {"use": "permutation-lm"}, "rank": {"use": "lambdaloss", "mu": 5}},
        "weights": {"rank": 2},
    }
    assert recipe.check(tree) == []
    made = recipe.build(tree, Path())
    assert made == losses.Sum({"lm": losses.PermutationLM(), "rank": losses.LambdaLoss(mu=5)}, {"rank": 2})
    assert recipe.build({"use": "first-loss", "weight": 3}, Path()) == losses.first_loss(3)


def test_the_sum_of_the_guide_is_one() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide-training.md").read_text()
    [said] = [yaml.safe_load(line) for line in guide.splitlines() if line.startswith("loss: {use: sum")]
    made = recipe.build(said["loss"], Path())
    assert made == losses.Sum({"order": losses.RankNet(), "top": losses.ListNet()}, {"top": 0.5})


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"use": "lambdaloss", "sigm": 1}, "no argument 'sigm'; did you mean sigma?"),
        ({"use": "lambdaloss", "mu": 0, "rho": 0}, "mu=0, rho=0: expected 0 or more, and not 0 both"),
        ({"use": "lambdaloss", "k": 0}, "k: 0; expected more than 0"),
        ({"use": "ranknet", "sigma": -1}, "sigma: -1; expected more than 0"),
        ({"use": "kl", "temperature": 0}, "temperature: 0; expected more than 0"),
        ({"use": "neural-ndcg", "scalings": 0}, "scalings: 0; expected more than 0"),
        ({"use": "listent"}, "no component 'listent'; did you mean listnet"),
        ({"use": "sum", "losses": {}}, "losses: expected one or more"),
        (
            {"use": "sum", "losses": {"rank": {"use": "ranknet"}}, "weights": {"rang": 1}},
            "weights: no loss 'rang'; did you mean rank?",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tree: dict[str, Any], said: str) -> None:
    [fault] = recipe.check(tree)
    assert said in fault
    with pytest.raises((RecipeError, TypeError)):
        recipe.build(tree, Path())


@pytest.mark.parametrize(
    "given",
    [
        (torch.zeros(2, 3), torch.zeros(2, 1), torch.ones(2, 3, dtype=torch.bool)),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3)),
        (torch.zeros(3), torch.zeros(3), torch.ones(3, dtype=torch.bool)),
    ],
)
def test_other_shapes_are_refused(given: tuple[Any, ...]) -> None:
    for loss in (losses.RankNet(), losses.InBatch(margin=1)):
        with pytest.raises(ValueError, match=r"expected one shape \(lists, items\)"):
            loss(*given)
    with pytest.raises(ValueError, match=r"expected \(B, T, V\) and \(B, T\)"):
        losses.PermutationLM()(*given[:2])
