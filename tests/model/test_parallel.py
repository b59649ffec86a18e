"""Passes beside one another: the same numbers as one after the other, in order, nothing left."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lipo_cli.errors import TrainingError
from lipo_cli.model import parallel
from lipo_cli.model.parallel import mapped
from lipo_cli.settings import PEFT_METHODS, Peft
from tests.fixtures.models import SMILES, disturb, tiny_regressor

CPU = torch.device("cpu")


@pytest.fixture
def threads() -> Iterator[int]:
    """Four threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


def test_items_are_computed_at_once_each_on_one_thread(threads: int) -> None:
    # Nobody passes before all have come: one after the other would wait for ever.
    together = threading.Barrier(threads, timeout=60)

    def computed(item: int) -> tuple[int, int]:
        together.wait()
        torch.ones(8) @ torch.ones(8)
        return item * item, torch.get_num_threads()

    found = list(mapped(computed, range(threads), CPU))
    assert found == [(item, (item * item, 1)) for item in range(threads)]
    assert torch.get_num_threads() == threads


def test_results_come_in_order_whichever_is_done_first(threads: int) -> None:
    last = threading.Event()

    def computed(item: int) -> int:
        if item == 0:
            assert last.wait(60)
        elif item == threads - 1:
            last.set()
        return -item

    assert list(mapped(computed, range(threads), CPU)) == [(i, -i) for i in range(threads)]


@pytest.mark.usefixtures("threads")
def test_an_error_is_the_callers_and_what_waits_is_left() -> None:
    done = []

    def computed(item: int) -> int:
        if item == 0:
            raise ValueError("no")
        done.append(item)
        return item

    with pytest.raises(ValueError, match="no"):
        list(mapped(computed, range(10_000), CPU))
    assert len(done) < 10_000
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("threads")
def test_fewer_passes_than_threads_go_one_after_another_with_all_of_them() -> None:
    here = threading.get_ident()
    found = mapped(lambda _: (threading.get_ident(), torch.get_num_threads()), range(3), CPU)
    assert [each for _, each in found] == [(here, 4)] * 3


def test_more_threads_than_passes_at_once_are_shared(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MOST_AT_ONCE", threads // 2)
    found = mapped(lambda _: (threading.get_ident(), torch.get_num_threads()), range(50), CPU)
    each = [result for _, result in found]
    assert {n for _, n in each} == {2}
    assert len({who for who, _ in each}) <= 2


def test_who_begins_meanwhile_has_all_threads(threads: int) -> None:
    """As a server's threads do: what one predicts takes nothing from those that begin later."""
    begun, over = threading.Event(), threading.Event()

    def computed(_: int) -> int:
        begun.set()
        assert over.wait(60)
        return torch.get_num_threads()

    def predicts() -> list[int]:
        return [found for _, found in mapped(computed, range(2 * threads), CPU)]

    with ThreadPoolExecutor(2) as server:
        first, second = server.submit(predicts), server.submit(predicts)
        assert begun.wait(60)
        with ThreadPoolExecutor(1) as late:
            assert late.submit(torch.get_num_threads).result() == threads
        over.set()
        assert first.result() == second.result() == [1] * 2 * threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.usefixtures("threads")
def test_a_fork_makes_threads_of_its_own() -> None:
    assert len([*mapped(abs, range(8), CPU)]) == 8
    child = os.fork()
    if child == 0:
        os._exit(len([*mapped(abs, range(8), CPU)]))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 8


def test_memory_that_runs_out_is_one_line(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = tiny_regressor(tiny, "full")

    def too_much(**_: object) -> object:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 TB")

    monkeypatch.setattr(regressor.model, "forward", too_much)
    with pytest.raises(TrainingError, match="predicting: memory ran out"):
        regressor.predict(SMILES)


def test_one_thread_computes_in_the_callers_own() -> None:
    assert torch.get_num_threads() == 1  # conftest
    here = threading.get_ident()
    assert [found for _, found in mapped(lambda _: threading.get_ident(), [0, 1], CPU)] == [
        here
    ] * 2


@pytest.mark.parametrize("peft", PEFT_METHODS)
@pytest.mark.parametrize("training", [False, True])
def test_predictions_are_those_of_one_thread(
    tiny: Path, peft: Peft, training: bool, threads: int
) -> None:
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    many = [*SMILES, *("C" * k + s for s in SMILES for k in range(1, 12))]  # five passes
    regressor.model.train(training)
    found, embedded = regressor.predict(many), regressor.embed(many)
    assert regressor.model.training is training
    torch.set_num_threads(1)
    # Bit for bit, but that LoRA's product is put into the weights by all threads together.
    last_bit = 1e-6 if peft == "lora" else 0
    np.testing.assert_allclose(found, regressor.predict(many), rtol=last_bit)
    np.testing.assert_allclose(embedded, regressor.embed(many), rtol=0, atol=last_bit)
    assert np.ptp(found) > 0.1
    assert torch.get_num_threads() < threads
