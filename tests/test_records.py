"""Records: what stands once for all of them, and what they show to those who know dataclasses alone."""

import copy
import dataclasses
import inspect
import pickle
from typing import Any, ClassVar

import pytest

from convcalc.layers.conv import Conv2d
from convcalc.layers.parametric import PReLU
from convcalc.records import REQUIRED, dataclass, field, parameters_of, replace


@dataclass(frozen=True, eq=False)
class Point:
    """A record with every kind of field."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict, init=False)
    count: ClassVar[int] = 0


@dataclass(frozen=True, eq=False)
class Checked(Point):
    z: int = 3

    def __post_init__(self) -> None:
        assert self.z > 0


@dataclasses.dataclass(frozen=True)
class Further(Point):
    """A dataclass of the standard library below one of ours."""

    w: int = 4


def test_fields_get_what_is_given_and_else_their_defaults():
    point, other = Point(1), Point(1, y=5, tags=["a"])
    assert (point.x, point.y, point.tags, point.made) == (1, 2, [], {})
    assert (other.x, other.y, other.tags) == (1, 5, ["a"])
    assert point.tags is not Point(1).tags
    assert repr(point) == "Point(x=1, y=2, tags=[], made={})"
    assert repr(Checked(1, 2, [], 9)) == "Checked(x=1, y=2, tags=[], made={}, z=9)"
    with pytest.raises(AssertionError):
        Checked(1, z=0)


@pytest.mark.parametrize(
    ("given", "named", "wrong"),
    [
        ((), {}, "missing 'x'"),
        ((1, 2, [], 4), {}, "takes 3 arguments but 4"),
        ((1,), {"q": 1}, "unexpected keyword argument 'q'"),
        ((), {"q": 1}, "unexpected keyword argument 'q'"),
        ((1,), {"x": 1}, "multiple values for argument 'x'"),
        ((1,), {"made": {}}, "unexpected keyword argument 'made'"),
    ],
)
def test_a_wrong_call_is_a_type_error_that_says_what(given, named, wrong):
    with pytest.raises(TypeError, match=wrong):
        Point(*given, **named)


def test_a_record_does_not_change():
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.other = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x


def test_replace_makes_another_one_by_the_constructor():
    changed = replace(Checked(1, z=7), y=8)
    assert (type(changed), changed.x, changed.y, changed.z) == (Checked, 1, 8, 7)
    with pytest.raises(TypeError, match="'q'"):
        replace(Point(1), q=1)
    with pytest.raises(AssertionError):
        replace(Checked(1), z=-1)


def test_dataclasses_know_them():
    assert dataclasses.is_dataclass(Point)
    assert [each.name for each in dataclasses.fields(Checked)] == ["x", "y", "tags", "made", "z"]
    assert [each.init for each in dataclasses.fields(Point(1))] == [True, True, True, False]
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 2, "tags": [], "made": {}}
    assert dataclasses.replace(Checked(1, z=7), y=8).y == 8
    assert [each.name for each in dataclasses.fields(Further)] == ["x", "y", "tags", "made", "w"]
    assert Further(1, w=9).w == 9
    assert dataclasses.replace(Conv2d(3, 8, 3), bias=False) == Conv2d(3, 8, 3, bias=False)


def test_their_signatures_are_those_of_dataclasses():
    assert str(inspect.signature(Point)) == "(x, y=2, tags=<factory>)"
    assert list(inspect.signature(Conv2d).parameters)[:3] == ["in_channels", "out_channels", "kernel_size"]
    assert parameters_of(Point)["x"] is REQUIRED
    assert list(inspect.signature(PReLU).parameters) == list(parameters_of(PReLU))


def test_they_can_be_copied_matched_and_pickled():
    layer = Conv2d(3, 8, 3)
    assert copy.deepcopy(layer) == copy.copy(layer) == layer == pickle.loads(pickle.dumps(layer))
    match Point(1, 5):
        case Point(x, y):
            assert (x, y) == (1, 5)
