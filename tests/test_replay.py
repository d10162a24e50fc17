"""Networks that are computed again: the calls that were kept give what working them out anew gives."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest

from convcalc.errors import ConvcalcError, ShapeError
from convcalc.executor import threads as threads_module
from convcalc.executor.algorithms import ALGORITHMS
from convcalc.executor.plan import plan
from convcalc.executor.replay import ALIGNED, Replay, layout
from convcalc.executor.run import compute, prepare
from convcalc.executor.threads import play, threads
from convcalc.nouns import read_program
from tests.test_plan import OBJECTS, PIECES, peak_of

EXAMPLES = Path(__file__).parent.parent / "examples"
RESIDUAL = (
    "conv:32,k3,p1 relu @a conv:8,k1 relu conv:8,k3,p1 relu conv:32,k1 add:@a relu @b conv:16,k3,s2,p1 bn relu"
    " maxpool:3,s2,p1 conv:64,k1"
)


def seen(prepared):
    """How many layers are recorded as one."""
    with threads(2):
        return [len(step.items) for step in prepared.again() if isinstance(step, Replay)]


def test_a_network_is_recorded_when_it_is_computed_again():
    prepared = prepare(RESIDUAL, np.ones((1, 3, 32, 32), np.float32))
    assert seen(prepared) == []
    assert seen(prepared) == [14]


def same_again(text, shape, rounds=4, count=2, algorithm=None):
    """Whether outputs on other inputs are those of a network prepared for each; and whether anything was recorded."""
    stream = np.random.default_rng(1)
    prepared = prepare(text, stream.standard_normal(shape).astype(np.float32))
    for _ in range(rounds):
        x = stream.standard_normal(shape).astype(np.float32)
        ((name, tensor),) = prepared.inputs.items()
        with threads(count):
            found = compute(prepared, inputs={name: x.reshape(tensor.shape)}, algorithm=algorithm).output
            wanted = compute(prepare(text, x), algorithm=algorithm).output
        np.testing.assert_array_equal(found, wanted)
    return any(isinstance(step, Replay) for steps in prepared._replays.values() for step in steps or ())


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])
def test_what_is_recorded_gives_what_is_worked_out(count, algorithm):
    assert same_again(RESIDUAL, (2, 3, 40, 40), count=count, algorithm=algorithm)


def test_outputs_are_not_overwritten():
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    prepared = prepare(RESIDUAL, x)
    found = [compute(prepared, inputs={"input": x * factor}).output for factor in (1, 2, 3, 4)]
    assert len({array.tobytes() for array in found}) == 4
    np.testing.assert_array_equal(found[2], compute(prepare(RESIDUAL, x * 3)).output)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "text",
    [
        "conv:16,k3,p1 @a globalavgpool conv:16,k1 sigmoid mul:@a conv:8,k1",
        "conv:16,k3,p1 @a relu @b globalavgpool from:@a mul:@a conv:8,k1 hardswish",
        "conv:16,k3,p1 @a conv:8,k1 concat:@a gelu conv:8,k1 softplus",
        "conv:16,k3,p1 @a relu add:@a conv:8,k1 @b silu add:@b,@b concat:@b,dim=2 adaptiveavgpool:3",
        "conv:16,k3,p1 prelu conv:16,k3,p1 permute:0x3x1x2 conv:20,k1 conv:3,k1",
        "conv:16,k3,p1 relu conv:8,k3,p1 flatten linear:900 relu linear:50 gelu linear:1",
        "conv:16,k3,p1 maxpool:3,s2,p1 lppool:2,norm_type=2 conv:4,k1 permute:0x1x3x2 sigmoid conv:4,k1",
    ],
)
def test_rows_of_other_layers(text, count):
    assert same_again(text, (2, 3, 18, 20), count=count)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.txt")), ids=lambda path: path.stem)
def test_the_examples_give_the_same_again(path):
    program = read_program([str(path)])
    shape, program.given = program.given, None
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    with threads(2):
        prepared = prepare(program, x)
        first, *others = (compute(prepared).output for _ in range(3))
        assert any(isinstance(step, Replay) for step in prepared.again())
    for output in others:
        np.testing.assert_array_equal(output, first)


def draw(seed):
    """A chain of the pieces of the plan's tests, and a shape."""
    stream = random.Random(seed)
    pieces = [stream.choice(PIECES).format(c=stream.choice([4, 8, 16])) for _ in range(stream.randint(3, 9))]
    return " ".join(pieces), (stream.choice([1, 2]), stream.choice([4, 16]), 24, 24)


@pytest.mark.parametrize("seeds", [range(25), pytest.param(range(25, 1500), marks=pytest.mark.slow)])
def test_random_chains(seeds):
    recorded = 0
    for seed in seeds:
        chain, shape = draw(seed)
        try:
            prepare(chain, np.ones(shape, np.float32))
        except ConvcalcError:
            continue
        recorded += same_again(chain, shape, rounds=3, count=1 + seed % 3)
    assert recorded > len(seeds) // 8


def test_another_number_of_threads_or_another_algorithm_is_recorded_anew():
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    prepared = prepare(RESIDUAL, x)
    wanted = compute(prepare(RESIDUAL, x)).output
    for count in (1, 2, 2, 2, 3, 3, 3, 1):
        np.testing.assert_allclose(compute(prepared, threads=count).output, wanted, rtol=1e-4, atol=1e-5)
    for algorithm in ("direct", "direct", "im2col", "im2col", "im2col", None, None):
        np.testing.assert_allclose(compute(prepared, algorithm=algorithm).output, wanted, rtol=1e-4, atol=1e-5)


def test_two_threads_at_once():
    stream = np.random.default_rng(0)
    xs = [stream.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(8)]
    wanted = [compute(prepare(RESIDUAL, x)).output for x in xs]
    prepared = prepare(RESIDUAL, xs[0])
    found = {}

    def work(index):
        for _ in range(3):
            found[index] = compute(prepared, inputs={"input": xs[index]}).output

    running = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    with threads(2):
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    for index in range(8):
        np.testing.assert_allclose(found[index], wanted[index], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_two_networks_of_one_thread_in_two_threads(count):
    """Calls that one thread has recorded work in its arrays: another that made them would write over its numbers."""
    stream = np.random.default_rng(0)
    chain = "conv:32,k3,p1 relu conv:32,k3,p1 relu conv:32,k5,p2 relu"
    prepared = [prepare(chain, stream.standard_normal((1, 3, 48, 48)).astype(np.float32)) for _ in range(2)]
    wrong = []

    def work(own, wanted):
        for _ in range(10):
            wrong.extend([own] * (not np.array_equal(compute(own).output, wanted)))

    with threads(count):
        wanted = [[compute(own).output for own in prepared] for _ in range(3)][-1]
        running = [threading.Thread(target=work, args=pair) for pair in zip(prepared, wanted, strict=True)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    assert wrong == []


def test_a_recording_that_was_interrupted_is_made_anew(monkeypatch):
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    prepared = prepare(RESIDUAL, x)
    wanted = [compute(prepared, threads=1).output for _ in range(2)][-1]
    with threads(1):
        (replay,) = prepared.again()

    def interrupted(_):
        raise KeyboardInterrupt

    with threads(2), monkeypatch.context() as patched:
        patched.setattr("convcalc.executor.replay.together", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replay.run((x,))
    with threads(1):
        np.testing.assert_array_equal(replay.run((x,))[0], wanted)


def test_inputs_of_another_shape_or_type_are_not_forced_into_what_is_recorded():
    stream = np.random.default_rng(0)
    prepared = prepare("conv:8,k3,p1 relu conv:8,k3,p1", stream.standard_normal((2, 3, 32, 32)).astype(np.float32))
    with threads(1):
        prepared.again()
        (replay,) = prepared.again()
    for x in (stream.standard_normal((1, 3, 32, 32)).astype(np.float32), stream.standard_normal((2, 3, 32, 32))):
        (found,) = replay.run((x,))
        wanted = x
        for step in prepared.steps(joined=True):
            (wanted,) = step.run((wanted,))
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("strided", [False, True], ids=["recorded", "one by one"])
def test_an_error_names_its_own_layer_and_not_the_first_of_its_row(strided):
    x, eye = np.ones((2, 4), np.float32), np.eye(4, dtype=np.float32)
    text = "relu linear:4,nobias linear:4,nobias embedding:2,num_embeddings=3 relu"
    prepared = prepare(text, x, {"1.weight": eye, "2.weight": eye})
    compute(prepared)
    compute(prepared)
    assert seen(prepared) == [5]
    x[1, 3] = 7
    with pytest.raises(ShapeError, match=r"7\.0 came in") as raised:
        compute(prepared, inputs={"input": np.asfortranarray(x) if strided else x})
    assert raised.value.layer == "3 (embedding)"


def test_what_is_recorded_holds_no_more_than_the_plan():
    for batch in (1, 4):
        prepared = prepare(RESIDUAL, np.ones((batch, 3, 96, 96), np.float32))
        with threads(2):
            planned = plan(prepared.network, prepared.resolved, "float32")
        there = sum(array.nbytes for array in (*prepared.inputs.values(), *prepared.weights.values()))

        def several(prepared=prepared):
            for _ in range(3):
                compute(prepared, threads=2)

        assert there + peak_of(several) <= 1.5 * planned.total + OBJECTS


class TestStages:
    @pytest.fixture(autouse=True, params=[1, 8])
    def core_count(self, request, monkeypatch):
        monkeypatch.setattr("convcalc.executor.threads.core_count", lambda: request.param)

    def test_no_thread_begins_a_stage_before_the_last_is_done(self):
        log = []
        stages = [[[(log.append, ((number, hand),))] * 20 for hand in range(1 + number % 3)] for number in range(60)]
        with threads(3):
            play(stages)
        numbers = [number for number, _ in log]
        assert numbers == sorted(numbers)
        assert len(numbers) == sum(20 * len(stage) for stage in stages)

    def test_without_threads_all_is_done(self):
        log = []
        play([[[(log.append, (hand,))] for hand in range(4)]])
        assert sorted(log) == [0, 1, 2, 3]

    @pytest.mark.parametrize("hand", [0, 1])
    def test_an_error_ends_all(self, hand):
        def fail():
            raise MemoryError("no room")

        log = []
        stages = [[[], []], [[], []], [[(log.append, (1,))]] * 2]
        stages[1][hand] = [(fail, ())]
        with threads(2), pytest.raises(MemoryError, match="no room"):
            play(stages)
        assert log == []


class _Step:
    def __init__(self, inputs, *outputs):
        self.inputs, self.outputs = inputs, outputs


def test_tensors_alive_at_once_lie_apart():
    stream = random.Random(0)
    for _ in range(200):
        names = ["in"]
        steps = []
        for index in range(stream.randint(1, 12)):
            steps.append(_Step(tuple(stream.sample(names, min(len(names), stream.randint(1, 2)))), f"t{index}"))
            names.append(f"t{index}")
        outputs = {names[-1], stream.choice(names[1:])}
        sizes = {name: stream.randint(1, 1000) for name in names}
        places, size = layout(steps, ["in"], list(outputs), sizes)
        last = {name: index for index, step in enumerate(steps) for name in (*step.inputs, *step.outputs)}
        last |= dict.fromkeys(outputs, len(steps))
        first = {"in": -1} | {step.outputs[0]: index for index, step in enumerate(steps)}
        for a in names:
            assert places[a] % ALIGNED == 0
            assert places[a] + sizes[a] <= size
            for b in names:
                if a < b and max(first[a], first[b]) <= min(last[a], last[b]):
                    assert places[a] + sizes[a] <= places[b] or places[b] + sizes[b] <= places[a]


def test_an_interrupt_before_the_own_part_ends_all(monkeypatch):
    """Ctrl-C may come when the other threads have begun and wait for this one."""
    monkeypatch.setattr("convcalc.executor.threads.core_count", lambda: 8)
    log = []

    class Interrupting(list):
        def __getitem__(self, index):
            if index == 0:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    stages = [[[], []], [[], [(log.append, (1,))]]]
    begun = threads_module._at_once
    monkeypatch.setattr(threads_module, "_at_once", lambda works, give_up: begun(Interrupting(works), give_up))
    with threads(2), pytest.raises(KeyboardInterrupt):
        play(stages)
    assert log == []


@pytest.mark.parametrize("count", [None, 2])
def test_blocks_of_several_threads_end_in_any_order(count):
    """Each has threads of its own; none is left with those of a block that is over."""
    prepared = [prepare(RESIDUAL, np.full((1, 3, 32, 32), value, np.float32)) for value in range(4)]
    wanted = [compute(own, threads=1).output for own in prepared]
    found = {}

    def work(index):
        for _ in range(8):
            found[index] = compute(prepared[index], threads=count).output

    running = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not any(thread.is_alive() for thread in running)
    for index in range(4):
        np.testing.assert_allclose(found[index], wanted[index], rtol=1e-5, atol=1e-6)
    assert threads_module.thread_count() == 1


def test_a_block_that_ends_before_one_that_began_later():
    first, second = threads(2), threads(3)
    held = [library["num_threads"] for library in threads_module.libraries().info()]
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads_module.thread_count() == 3
    second.__exit__(None, None, None)
    assert threads_module.thread_count() == 1
    assert [library["num_threads"] for library in threads_module.libraries().info()] == held
