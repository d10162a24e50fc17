"""What things are called: tensors in graphs and functions, nodes in the network.

A `Visit` is a node of the file as the walk meets it, with all of its names looked up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from convcalc.errors import ModelFileError
from convcalc.onnx.messages import Attribute, Graph, Node, ValueInfo


class Scope:
    """The names of a graph or function: what its tensors are called in the network, and its attributes' values.

    The main graph's names are the network's; others' stand after a prefix, but for those that go out, which are
    `called` what the graph around calls them. `infos` are what the file says of tensors; `file` is its name in errors.
    """

    __slots__ = ("attributes", "called", "file", "infos", "names", "opset", "outer", "prefix")

    def __init__(self, file: str, prefix: str, opset: int, outer: Scope | None = None) -> None:
        self.file = file
        self.prefix = prefix
        self.opset = opset
        self.outer = outer
        self.names: dict[str, str] = {}
        self.called: dict[str, str] = {}
        self.attributes: Mapping[str, Attribute] = {} if outer is None else outer.attributes
        self.infos: Mapping[str, ValueInfo] = {}

    def find(self, name: str) -> str | None:
        """What a tensor is called in the network, or None when nothing has made it."""
        scope: Scope | None = self
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                return found
            scope = scope.outer
        return None

    def calls(self, name: str) -> str:
        """What a tensor that is made here is called in the network."""
        return self.called.get(name) or self.prefix + name

    def define(self, name: str, what: str = "tensor") -> str:
        """The network's name for a tensor that is made here. Raises `ModelFileError` when there is one already."""
        if not name:
            raise ModelFileError(f"{self.file}: one {what} has no name")
        if name in self.names:
            raise ModelFileError(f"{self.file}: {what} {name} is made twice")
        whole = self.names[name] = self.calls(name)
        return whole

    def inside(self, prefix: str) -> Scope:
        """A scope that stands in this one, and sees its names."""
        return Scope(self.file, prefix, self.opset, self)

    def is_used(self, name: str) -> bool:
        """Whether anything takes a tensor, as far as is known: what nothing takes need not be made."""
        return bool(name)


class MainScope(Scope):
    """The names of a file's main graph."""

    __slots__ = ("_inside", "_taken", "graph")

    def __init__(self, file: str, graph: Graph, opset: int) -> None:
        super().__init__(file, "", opset)
        self.graph = graph
        self.infos = infos_of(graph)
        self._inside = False
        self._taken: set[str] | None = None

    def is_used(self, name: str) -> bool:
        """Whether a node takes a tensor, or it goes out."""
        if self._taken is None:
            self._taken = {info.name for info in self.graph.outputs}
            for node in self.graph.nodes:
                self._taken.update(node.inputs)
                # Branches and loops may take any tensor of the graph around them.
                self._inside |= node.op_type in ("If", "Loop", "Scan")
        return bool(name) and (self._inside or name in self._taken)


def infos_of(graph: Graph) -> dict[str, ValueInfo]:
    """What a graph says of the tensors that it makes."""
    return {info.name: info for info in (*graph.value_infos, *graph.outputs)}


class Visit:
    """A node as the walk meets it: its name in the network, its inputs' names there, and its attributes' values.

    `where` is what errors call it. What comes in is known after `look_up`.
    """

    __slots__ = ("attributes", "inputs", "name", "node", "scope", "where")

    def __init__(self, node: Node, scope: Scope, name: str) -> None:
        self.node = node
        self.scope = scope
        self.name = name
        self.where = f"{scope.file}: node {name} ({node.op_type})"
        self.inputs: Sequence[str] = ()
        self.attributes: dict[str, Any] = {}

    def look_up(self) -> None:
        """Find the inputs and the attributes. Raises `ModelFileError` for an input that nothing has made."""
        self.inputs = [self.input_called(given) if given else "" for given in self.node.inputs]
        for name, attribute in self.node.attributes.items():
            meant: Attribute | None = attribute
            if attribute.ref_attr_name:
                meant = self.scope.attributes.get(attribute.ref_attr_name)
            if meant is not None:
                self.attributes[name] = meant.value

    def input_called(self, given: str) -> str:
        """The network's name of what the node calls so. Raises `ModelFileError` when nothing has made it."""
        found = self.scope.find(given)
        if found is None:
            raise ModelFileError(f"{self.where}: it takes {given}, which nothing before it makes")
        return found

    def gives(self, tensors: Sequence[str]) -> None:
        """Let the outputs be tensors that are there already."""
        for output, tensor in zip(self.node.outputs, tensors, strict=False):
            if output:
                self.scope.define(output)
                self.scope.names[output] = tensor

    def gives_one(self, tensor: str) -> None:
        """Let the one output be a tensor that is there. Raises `ModelFileError` when the node has no output."""
        if not any(self.node.outputs[:1]):
            raise ModelFileError(f"{self.scope.file}: {self.node.op_type} {self.node.name} has no output")
        self.gives([tensor])


class NodeNames:
    """The names of the network's nodes, each told from others of the same name."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def of(self, node: Node, scope: Scope, place: int) -> str:
        """The node's name, made of its `place` if it has none.

        PyTorch's newer exporter notes the modules apart from the name; then they become a part of it, as its older
        exporter writes them.
        """
        scopes = node.metadata(_SCOPES) if node.metadata_extents else ""
        name = f"{_modules(scopes)}/{node.op_type}" if scopes else node.name or f"{node.op_type}_{place}"
        wanted = name = scope.prefix + name
        mark = "_" if scopes else "."
        while name in self._counts:
            count = self._counts[wanted] = self._counts[wanted] + 1
            name = f"{wanted}{mark}{count}"
        self._counts[name] = 0
        return name


_SCOPES = "pkg.torch.onnx.name_scopes"
"""The key under which PyTorch's exporter notes the modules that a node is in, as Python prints a list."""


@lru_cache(maxsize=1)
def _modules(scopes: str) -> str:
    """The modules as a path: each by its attribute's name, and what has a number after its container.

    The last one is the node's own name and is left out.

    >>> _modules("['', 'features', 'features.1', 'features.1.0', 'features.1.0.conv', 'conv2d_3']")
    '/features/features.1/features.1.0/conv'
    """
    path, before, called = "", "", ""
    for module in re.findall(r"'([^']*)'", scopes)[1:-1]:
        own = module.removeprefix(f"{before}.") if before else module
        called = f"{called}.{own}" if called and own[:1].isdigit() else own
        path += f"/{called}"
        before = module
    return path


def domain_of(named: str) -> str:
    """A domain of ops; ONNX's own has two names.

    >>> domain_of("ai.onnx")
    ''
    """
    return "" if named == "ai.onnx" else named
