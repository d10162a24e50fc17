"""From the modules that PyTorch printed to nodes: how they are wired, as far as their classes or an assumption tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from convcalc.errors import (
    ConvcalcError,
    ExpressionError,
    ModelFileError,
    ResourceError,
    Span,
    did_you_mean,
    refuse_other,
)
from convcalc.expressions.layer_text import LayerText
from convcalc.expressions.program import steps_before_batch
from convcalc.layers.activation import ReLU
from convcalc.layers.adaptive import GlobalAvgPool
from convcalc.layers.base import Layer, Shape, shape_text, whole
from convcalc.layers.join import Add, Mul
from convcalc.layers.linear import Linear
from convcalc.layers.matmul import Attention
from convcalc.layers.opaque import Opaque
from convcalc.layers.parametric import GELU
from convcalc.layers.rearrange import Identity
from convcalc.layers.reshape import Flatten
from convcalc.layers.tensor import Split
from convcalc.network import Constant, Node, Unsaid, on_hidden_batch, tensor_names
from convcalc.records import replace
from convcalc.torch_classes import (
    ADD,
    ATTENTION,
    CHAINS,
    KEEP,
    LISTS,
    MEAN,
    MULTIPLY,
    NORMS_WITH_MODULES,
    PARAMETER,
    WIRED,
    Module,
    Owner,
    layer_of,
    parametrization,
    unsaid_indices,
    unsaid_of,
)
from convcalc.tracing import product

MOST_MODULES = 100_000
UNKNOWN = "?"
"""A tensor that nothing makes."""

Step = Callable[[], "Sequence[Step] | None"]
"""Something to do, and what is to be done right after it."""


class _Container:
    """A container that the walk is in: what came into it, and whether all that are around it are chains."""

    __slots__ = ("above", "certain", "chain", "kept", "path", "shape", "tensor")

    def __init__(self, path: str, tensor: str, shape: Shape | None, above: _Container | None, *, chain: bool) -> None:
        self.path = path
        self.tensor = tensor
        self.shape = shape
        self.above = above
        self.chain = chain
        self.certain: bool = chain and (above is None or above.certain)
        self.kept = tensor


class Unprinted:
    """What is said of fields that the text leaves out: a value and its place by "field", or by "module.field"."""

    def __init__(self, said: Mapping[str, tuple[Any, Span | None]]) -> None:
        self.said = said
        self.used: set[str] = set()
        self.left: dict[str, str] = {}

    def of(self, name: str, layer: Layer, unsaid: tuple[Unsaid, ...]) -> tuple[Layer, tuple[Unsaid, ...]]:
        """The layer of this name with what is said of it, and what is left unsaid."""
        left = []
        for one in unsaid:
            # The innermost module that something is said of decides.
            places = [name[:end] for end in (len(name), *_dots(name))]
            key = next((key for key in (*(f"{at}.{one.field}" for at in places), one.field) if key in self.said), None)
            if key is None:
                self.left.setdefault(one.field, name)
                left.append(one)
                continue
            self.used.add(key)
            value, span = self.said[key]
            try:
                layer = one.given(layer, value)
            except ConvcalcError as error:
                error.layer, error.span = error.layer or name, error.span or span
                raise
        return layer, tuple(one.of(layer) for one in left) if len(left) < len(unsaid) else unsaid

    def refuse_unused(self) -> None:
        """Raise `ExpressionError` for what is said of a field that is printed, or of none."""
        for key in self.said.keys() - self.used:
            left = [f"{field} ({name})" for field, name in self.left.items()]
            have = f"; what is not printed here is {', '.join(left)}" if left else ""
            field = key.rpartition(".")[2]
            meant = "" if field in self.left else did_you_mean(field, self.left)
            raise ExpressionError(
                f"--unprinted {key}: no layer leaves that out{have}{meant}",
                span=self.said[key][1],
                field=field,
            )


def _dots(name: str) -> list[int]:
    """Where the dots of a name stand, the last one first."""
    return [place for place in range(len(name) - 1, -1, -1) if name[place] == "."]


def _activation(_: Layer, word: Any) -> Layer:
    """What the function is that an encoder's layer has between its linear layers."""
    refuse_other("activation", word, ("relu", "gelu"))
    return GELU() if word == "gelu" else ReLU()


def _with_heads(_: Layer, heads: Any) -> Layer:
    """The attention with so many heads."""
    return Attention(q_heads=whole("num_heads", heads), kv_heads=heads)


class Walk:
    """Goes through the modules in printed order and wires what the text tells how to wire.

    `first` is the tensor that comes into the first of them, of this shape where it is known; "" where there is none.
    `hidden` says that its batch was not given. `outputs` are what goes out, where that is not the last tensor alone.
    """

    outputs: tuple[str, ...] = ()

    def __init__(
        self,
        texts: Mapping[Module, LayerText | None],
        rank: int,
        first: str,
        shape: Shape | None,
        *,
        hidden: bool,
        sequential: bool,
    ) -> None:
        self.texts = texts
        self.rank = rank
        self.no_batch = hidden
        self.steps_first: list[str] = []
        self.batch_first: list[str] = []
        self.sequential = sequential
        self.shape = shape
        self.no_input = not first
        self.current = first or UNKNOWN
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self.notes: list[str] = []
        self.names: set[str] = {"input"}
        self.unpools = any(module.cls.startswith("MaxUnpool") for module in texts)
        self.hidden: dict[str, list[str]] = {}
        self.unordered: dict[str, list[str]] = {}
        self.unknown: dict[str, list[str]] = {}
        self.owners: dict[str, list[str]] = {}
        self.attentions: list[str] = []
        self.recomputed: dict[str, list[str]] = {}
        self.elsewhere: list[str] = []
        self.misfit = ""
        self.unprinted = Unprinted({})

    def through(self, root: Module) -> None:
        """All modules below one. Without recursion: a text may nest deeper than Python does."""
        stack: list[Step] = [partial(self._module, root, root.names[0], None)]
        while stack:
            stack += reversed(stack.pop()() or ())
        if not self.nodes:
            # A container of nothing hands on what comes.
            self._add(Identity() if root.cls in CHAINS else Opaque(root.cls, root.text, owns=False), root.cls, root)
        last = self.nodes[-1]
        if last.outputs == (self.current,):
            # What a chain gives may be the indices of its last layer, too.
            self.nodes[-1] = replace(last, unsaid=last.unsaid or unsaid_indices(last.layer))

    def _module(self, module: Module, path: str, inside: _Container | None) -> Sequence[Step] | None:
        if module.cls in WIRED and {child.names[0] for child in module.children} <= {*WIRED[module.cls]}:
            return self._wired(module, path, inside)
        if module.is_container:
            return self._container(module, path, inside)
        if self._several(module, path, inside):
            return None
        self._leaf(module, path, inside)
        if module.cls in NORMS_WITH_MODULES:
            return [partial(self._module, child, f"{path}.{child.names[0]}", inside) for child in module.children]
        return None

    def _several(self, module: Module, path: str, inside: _Container | None) -> bool:
        """The nodes of a module that is several layers; false for any other."""
        if module.cls == ATTENTION and module.children:
            self._attention(module, path, inside)
        elif module.cls == "SelectAdaptivePool2d" and "pool_type=avg" in module.attributes:  # timm's
            self._add(GlobalAvgPool(), path or module.cls, module, (), inside)
            if "flatten=Flatten" in module.attributes:
                self._add(Flatten(), f"{path}.flatten", module, (), inside)
        else:
            return False
        return True

    def _container(self, module: Module, path: str, above: _Container | None) -> Sequence[Step]:
        """What is in a container, with breaks where its order of calls is not known."""
        chain = module.cls in CHAINS or (above is not None and above.chain and module.names == ("layers",))
        if not chain:
            if module.cls not in LISTS:
                self.hidden.setdefault(module.cls, []).append(path)
            self.unordered.setdefault(module.cls, []).append(path)
        here = _Container(path, self.current, self.shape, above, chain=chain)
        steps: list[Step] = []
        for child in module.children:
            for name in child.names:
                if not (chain or self.sequential or child.cls == PARAMETER):
                    steps.append(self._lose)
                steps.append(partial(self._module, child, f"{path}.{name}" if path else name, here))
        if len(steps) + len(self.nodes) > 2 * MOST_MODULES:
            raise ResourceError(f"the model has more than the {MOST_MODULES:,} modules that are read", span=module.span)
        return steps if chain or self.sequential else [*steps, self._lose]

    def _lose(self) -> None:
        """How what comes next is wired is not known."""
        self.current, self.shape = UNKNOWN, None

    def _wired(self, module: Module, path: str, above: _Container | None) -> Sequence[Step]:
        """A container whose code is known."""
        here = _Container(path, self.current, self.shape, above, chain=True)
        inner = f"{path}." if path else ""
        children = {child.names[0]: child for child in module.children}
        steps: list[Step] = []
        order = WIRED[module.cls]
        for number, name in enumerate(order, 1):
            if name in children:
                steps.append(partial(self._module, children[name], inner + name, here))
            elif name == "activation":
                # A function is not printed, and is relu unless another was given.
                unsaid = (Unsaid(name, "relu", "gelu", ReLU(), _activation),)
                steps.append(partial(self._add, ReLU(), inner + name, module, (), here, unsaid))
            elif name in (KEEP, ADD, MULTIPLY, MEAN):
                count = str(order[:number].count(name)) if order.count(name) > 1 else ""
                steps.append(partial(self._between, name, f"{inner}{name}{count}", module, here))
        return steps

    def _between(self, what: str, name: str, module: Module, here: _Container) -> None:
        """What a container's code does between its modules."""
        if what == KEEP:
            here.kept = self.current
        elif what == MEAN:
            self._add(GlobalAvgPool(), name, module, (), here)
        else:
            shape = self.shape
            self._add(Add() if what == ADD else Mul(), name, module, (here.kept, self.current), here)
            self.shape = here.shape if what == MULTIPLY else shape

    def _leaf(self, module: Module, path: str, inside: _Container | None) -> None:
        text = self.texts[module]
        layer = layer_of(module, text, self.rank)
        name = path or module.cls
        if module.cls == PARAMETER or isinstance(layer, Owner):
            self.owners.setdefault(module.cls, []).append(path)
        elif isinstance(layer, Opaque):
            self.unknown.setdefault(module.cls, []).append(path)
        if module.parametrized:
            self._parametrized(module, name, layer)
        if module.cls == PARAMETER:  # it is called by nobody
            self.nodes.append(Node(self._new(name, module), layer, (), (name,), module.span))
            return
        # A chain that is called as it stands has no use for indices.
        indices = self.unpools and not (inside is not None and inside.certain)
        unsaid = unsaid_of(module, layer, text) + (unsaid_indices(layer) if indices else ())
        self._add(layer, name, module, (), inside, unsaid)

    def _parametrized(self, module: Module, path: str, layer: Layer) -> None:
        """What makes a weight at each call: its parameters are known of PyTorch's own, its cost is not."""
        names, more = parametrization(module, layer)
        self.recomputed.setdefault(names, []).append(path)
        if more is None:
            self.hidden.setdefault(module.cls, []).append(path)
        if "_WeightNorm" in names:
            self.notes.append(f"dim of the weight norm of {path} is not printed and taken as 0")
        name = self._new(f"{path}.parametrizations", module)
        self.nodes.append(Node(name, Owner(names, names, weights=more or ()), (), (name,), module.span))

    def _attention(self, module: Module, path: str, inside: _Container | None) -> None:
        """The projections of an attention: of the first only the output's is printed."""
        inner = f"{path}." if path else ""
        for child in module.children:
            text = self.texts.get(child)
            linear = None if text is None else layer_of(child, text, self.rank)
            if not isinstance(linear, Linear) or linear.in_features is None:
                self._leaf(child, inner + child.names[0], inside)
                continue
            features = linear.in_features
            self._add(replace(linear, out_features=3 * features), f"{inner}in_proj", module, (), inside)
            self._add(Split((features,) * 3, -1), f"{inner}split", module, (), inside)
            parts = self.nodes[-1].outputs
            shape = None if self.shape is None else (*self.shape[:-1], features)
            heads = Attention(q_heads=1, kv_heads=1)
            unsaid = (Unsaid("num_heads", 1, 2, heads, _with_heads),)
            if not self.no_batch and self.shape is not None:
                self.batch_first.append(path)
            self._add(heads, f"{inner}attention", module, parts, inside, unsaid)
            self.shape = shape
            self._add(linear, f"{inner}{child.names[0]}", child, (), inside)
            if inside is None or not inside.chain:
                # Within a layer of PyTorch's own in_proj cannot be another.
                self.attentions.append(path)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _new(self, name: str, module: Module) -> str:
        if name in self.names:
            raise ModelFileError(f"two modules are named {name}", span=module.span, value=name)
        self.names.add(name)
        return name

    def _add(
        self,
        layer: Layer,
        name: str,
        module: Module,
        inputs: tuple[str, ...] = (),
        inside: _Container | None = None,
        unsaid: tuple[Unsaid, ...] = (),
    ) -> None:
        """A node after the current tensor, or after these."""
        layer, unsaid = self.unprinted.of(name, layer, unsaid)
        if self.no_batch:
            layer = on_hidden_batch(layer)
        elif self.shape is not None and not getattr(layer, "batch_first", True):
            self.steps_first.append(f"{name} ({layer.kind})")
        if not inputs and self.shape is not None and not isinstance(layer, Opaque):
            self._fit(layer, name, module, inside)
        outputs = tensor_names(name, layer)
        for output in outputs:
            self._new(output, module)
        text = self.texts.get(module)
        # Where more than one tensor comes in, as into max unpooling, no text says which.
        came = inputs or (self.current, *(UNKNOWN,) * (layer.inputs[0] - 1))
        self.nodes.append(Node(name, layer, came, outputs, module.span, text.spans if text else {}, unsaid=unsaid))
        self.current = outputs[0]
        if len(came) > 1 or self.shape is None:
            self.shape = None
            return
        try:
            self.shape = layer.bind(self.shape).infer(self.shape)[0]
        except ConvcalcError:
            # Resolving the network says what is wrong, at the right place.
            self.shape = None

    def _fit(self, layer: Layer, name: str, module: Module, inside: _Container | None) -> None:
        """Where the printed order is only assumed and a layer does not take what comes, find what it takes.

        That is what comes flattened, or its means, before a linear layer of so many features; or what came into a
        container around it, as into the shortcut of a residual block and into parallel branches.
        """
        if not self.sequential or (inside is not None and inside.certain) or self.shape is None:
            return
        if self._gathered(layer, name, module):
            return
        problem = _misfit(layer, self.shape)
        if not problem:
            return
        around = inside
        while around is not None:
            if around.tensor != self.current and around.shape is not None and not _misfit(layer, around.shape):
                self.current, self.shape = around.tensor, around.shape
                self.elsewhere.append(name)
                return
            around = around.above
        self.misfit = f"{name} does not take the {shape_text(self.shape[1:])} that come in printed order ({problem})"
        self._lose()

    def _gathered(self, layer: Layer, name: str, module: Module) -> bool:
        """Put before a linear layer what models do in their own code, which is not printed."""
        features = getattr(layer, "in_features", None)
        if layer.kind != "linear" or self.shape is None or features is None or len(self.shape) < 3:
            return False
        if product(self.shape[1:]) == features != self.shape[-1]:
            self.notes.append(f"a flatten is assumed before {name}, which needs the {features:,} numbers that come")
        elif self.shape[1] == features and len(self.shape) > 3:
            sizes = shape_text(self.shape[2:])
            self.notes.append(f"a mean over {sizes} is assumed before {name}, which needs {features:,} numbers")
            self._add(GlobalAvgPool(), f"{name}.mean", module)
        else:
            return False
        self._add(Flatten(), f"{name}.flatten", module)
        return True

    # --- what is to be said -------------------------------------------------------------------------------------------

    def all_notes(self) -> Iterator[str]:
        """What was taken for granted."""
        yield from self.notes
        if self.elsewhere:
            yield (
                f"{_count(self.elsewhere)} not fit after the module before: what came into a container around is taken"
            )
        yield from steps_before_batch(self.steps_first)
        if self.batch_first:
            yield f"batch_first of {_list({ATTENTION: self.batch_first})} is not printed and taken as true"
        if self.attentions:
            yield (
                f"in_proj of {_list({ATTENTION: self.attentions})} is not printed, and counted as PyTorch has it"
                " without kdim, vdim and add_bias_kv"
            )

    def hidden_names(self) -> tuple[str, ...]:
        """Containers that may own parameters which they do not print."""
        return tuple(path for paths in self.hidden.values() for path in paths)

    def unwired(self) -> str:
        """Why it is not known what comes into some modules; nothing where it is, or where the code says it."""
        if self.sequential or not self.unordered:
            return ""
        return (
            f"in which order the modules of {_list(self.unordered)} are called is not printed;"
            " print(torch.fx.symbolic_trace(model)) prints it, --assume-sequential takes the printed order"
        )

    def warnings(self) -> Iterator[str]:
        """What the text does not tell."""
        if self.hidden:
            yield (
                f"parameters are at least what is counted: {_list(self.hidden)} may own some of their own, which"
                " PyTorch does not print"
            )
        if self.no_input:
            yield "there is no input, so shapes and costs are not known; --input 3x224x224 gives one"
        elif self.unordered and self.sequential:
            yield (
                f"the modules are assumed to be called in printed order, those of {_list(self.unordered)} too; what"
                " their code does besides is not counted"
            )
        elif self.unordered:
            yield f"shapes and costs are partial: {self.unwired()}"
        if self.misfit:
            yield f"shapes and costs are partial: {self.misfit}"
        if self.owners:
            yield f"the parameters alone are counted of {_list(self.owners)}"
        if self.recomputed:
            yield f"what it costs to make the weights anew is not counted: {_list(self.recomputed)}"
        if self.unknown:
            yield f"not known, and counted nowhere: {_list(self.unknown)}"


def _misfit(layer: Layer, shape: Shape) -> str:
    """Why a layer does not take a shape; nothing if it does."""
    try:
        layer.bind(shape).infer(*(shape,) * layer.inputs[0])
    except ConvcalcError as error:
        return error.message
    return ""


def _count(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more do" if len(names) > 1 else " does"
    return names[0] + more


def _list(found: Mapping[str, Sequence[str]]) -> str:
    """Classes with where they stand: ResNet, Bottleneck (layer1.0 and 15 more)."""
    texts = []
    for cls, paths in found.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        texts.append(f"{cls} ({paths[0]}{more})" if paths[0] else cls)
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]
