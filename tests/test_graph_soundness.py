"""Graphs that are well-formed files, and crash runtimes: refused before any is given them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ran.errors import InputError
from edge_ran.graph import Graph, check_runnable, read_graph


@pytest.fixture
def graph(test_models: Path) -> Graph:
    return read_graph(test_models / "float32.tflite")


def with_operator(graph: Graph, index: int, **changes: object) -> Graph:
    operators = list(graph.operators)
    operators[index] = dataclasses.replace(operators[index], **changes)
    return dataclasses.replace(graph, operators=tuple(operators))


def test_networks_of_ours_pass(test_models: Path) -> None:
    for path in (*test_models.glob("*.tflite"), *Path("edge_ran/shipped").glob("*.tflite")):
        check_runnable(read_graph(path))


def test_what_crashes_runtimes_is_refused(graph: Graph) -> None:
    first, last = graph.operators[0], graph.operators[-1]
    huge = dataclasses.replace(first.outputs[0], shape=(1, 8, 8, 1 << 30))
    constant = dataclasses.replace(graph.inputs[0], constant=True)
    for changed, words in (
        (with_operator(graph, 0, inputs=()), "0 inputs"),
        (with_operator(graph, 0, inputs=first.inputs[:1], name="STRIDED_SLICE"), "1 input"),
        (with_operator(graph, 0, outputs=()), "0 outputs"),
        (with_operator(graph, 0, outputs=first.inputs[:1]), "writes what is there already"),
        (with_operator(graph, -1, outputs=first.outputs), "writes what is there already"),
        (with_operator(graph, 0, outputs=(huge,)), "more than 256 MB"),
        (dataclasses.replace(graph, inputs=(constant,)), "computed or constant"),
        (dataclasses.replace(graph, inputs=last.outputs), "computed or constant"),
        (dataclasses.replace(graph, outputs=(constant,)), "is constant"),
        (dataclasses.replace(graph, inputs=()), "nothing that could be run"),
        (dataclasses.replace(graph, inputs=(dataclasses.replace(graph.inputs[0], shape=(1, 1 << 20, 1 << 20, 3)),)),
         "more than 256 MB"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            check_runnable(changed)


def test_a_check_takes_no_longer_than_the_list_of_inputs(graph: Graph) -> None:
    class Counted(tuple[object, ...]):
        walks = 0

        def __iter__(self) -> Iterator[object]:
            self.walks += 1
            return super().__iter__()

    first = graph.operators[0]
    read = Counted(first.inputs)
    written = tuple(dataclasses.replace(first.outputs[0], index=index) for index in range(1000, 1100))
    check_runnable(with_operator(graph, 0, inputs=read, outputs=(*first.outputs, *written)))
    assert read.walks < 10
