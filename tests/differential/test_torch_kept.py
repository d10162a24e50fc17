"""What autograd keeps of random networks with branches: each storage once, in-place activations among them."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch")

from convcalc.analysis.memory import memory  # noqa: E402  after torch is known to be there
from convcalc.expressions import parse_text  # noqa: E402

nn = torch.nn
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
SHAPE = (2, 4, 8, 8)


def leaf(draw: random.Random):
    """A module that keeps the shape."""
    either = draw.random() < 0.5
    return draw.choice(
        [
            lambda: nn.Conv2d(4, 4, 3, padding=1, bias=either),
            lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode=draw.choice(["reflect", "circular"])),
            lambda: nn.BatchNorm2d(4, affine=either),
            lambda: nn.InstanceNorm2d(4, affine=either),
            lambda: nn.GroupNorm(2, 4),
            lambda: nn.LayerNorm((8, 8)),
            lambda: nn.ReLU(inplace=either),
            lambda: nn.ReLU6(inplace=either),
            lambda: nn.SiLU(inplace=either),
            lambda: nn.ELU(inplace=either),
            lambda: nn.LeakyReLU(0.1, inplace=either),
            lambda: nn.Dropout(0.3, inplace=either),
            draw.choice([nn.GELU, nn.Sigmoid, nn.Tanh, nn.PReLU, nn.Identity, nn.Hardswish]),
            lambda: nn.Softmax(1),
            lambda: draw.choice([nn.AvgPool2d, nn.MaxPool2d])(3, 1, 1),
        ]
    )()


def network_of(draw: random.Random) -> list[tuple[str, object]]:
    """Modules, names of tensors, ways back and joins, as (what, which)."""
    steps: list[tuple[str, object]] = [("module", leaf(draw))]
    names: list[str] = []
    for _ in range(draw.randint(2, 10)):
        pick = draw.random()
        if pick < 0.6:
            steps.append(("module", leaf(draw)))
        elif pick < 0.75 or not names:
            names.append(f"t{len(names)}")
            steps.append(("@", names[-1]))
        else:
            steps.append((draw.choice(["add", "add", "mul", "from"]), draw.choice(names)))
    return steps


def text_of(steps: list[tuple[str, object]]) -> str:
    texts = [
        str(which) if what == "module" else f"@{which}" if what == "@" else f"{what}:@{which}" for what, which in steps
    ]
    return " ".join(["x".join(map(str, SHAPE)), *texts])


def kept_by_torch(steps: list[tuple[str, object]]) -> int:
    storages: dict[int, int] = {}
    held = []  # so that no memory is used twice

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    current, named = torch.zeros(SHAPE), {}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for what, which in steps:
            held.append(current)
            if what == "module":
                current = which(current)
            elif what == "@":
                named[which] = current
            else:
                other = named[which]
                current = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b, "from": lambda _, b: b}[what](
                    current, other
                )
    return sum(storages.values())


@pytest.mark.parametrize("seed", range(200))
def test_what_autograd_keeps_of_branches(seed: int) -> None:
    steps = network_of(random.Random(seed))
    report = memory(parse_text(text_of(steps)).network(), train=True)
    assert report.totals["saved"] == kept_by_torch(steps)


@pytest.mark.parametrize(
    "inputs", ["@x conv:4,k1 mul:@x", "@x mul:@x conv:4,k1", "@x conv:4,k1 @y mul:@x,@y", "@x mul:@x,@x"]
)
def test_a_product_keeps_what_its_gradients_need(inputs: str) -> None:
    network = parse_text(f"2x4x8x8 {inputs}").network()
    tensors = {"input": torch.zeros(SHAPE)}
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    convolution = nn.Conv2d(4, 4, 1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for node in network.nodes:
            first, *others = (tensors[name] for name in node.inputs)
            value = convolution(first) if node.layer.kind == "conv" else first
            for other in others:
                value = value * other
                tensors[f"{node.name}, {len(tensors)}"] = value
            tensors[node.name] = value
    assert memory(network, train=True).totals["saved"] == sum(kept.values())
